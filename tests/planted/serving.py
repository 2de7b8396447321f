"""Bugs at the doors: who may call a server, what probes and strangers are answered, what errors are on the wire."""

from __future__ import annotations

from typing import Any

from tests.planted.dispatching import DispatchBug
from tests.planted.planting import Edit

SECURITY = "tests.access.test_security:test_"
OIDC = "tests.access.test_oidc:test_"
FILES = "tests.access.test_files:test_"
FOLLOWED = "tests.access.test_followed:test_"
BEARER = "tests.web.test_bearer:test_"
LIMITS = "tests.web.test_http_limits:test_"
BATCHES = "tests.rpc.test_batches:test_"
ENTRANCE = "tests.rpc.test_entrance:test_"
HEALTH = "tests.rpc.test_health:test_"
SERVER = "tests.rpc.test_server:test_"
STATUSES = "tests.rpc.test_statuses:test_"
TRIGGER = "tests.dispatcher.test_trigger:test_"


def bug(name: str, caught_by: str, where: str, old: str, new: str, **named: Any) -> DispatchBug:
    return DispatchBug(name, caught_by, (Edit(where, old, new),), named=named)


GUARDS = [
    bug(
        "a server listens on a public address in plaintext",
        SERVER + "plaintext_on_a_public_address_is_refused_unless_asked_for",
        "workqueue.access.security:check_listen",
        "if not (is_loopback(host) or",
        "if False and not (is_loopback(host) or",
        host="0.0.0.0",
    ),
    bug(
        "everywhere counts as loopback",
        SERVER + "plaintext_on_a_public_address_is_refused_unless_asked_for",
        "workqueue.access.addresses:is_loopback",
        ".is_loopback",
        ".is_unspecified",
        host="0.0.0.0",
    ),
    bug(
        "an unknown name counts as loopback",
        SERVER + "plaintext_on_a_public_address_is_refused_unless_asked_for",
        "workqueue.access.addresses:is_loopback",
        'return host == "localhost"',
        "return True",
        host="example.com",
    ),
    bug(
        "a client's certificate is ignored on a plaintext address",
        SECURITY + "settings_that_plaintext_would_ignore_or_betray_are_refused",
        "workqueue.access.security:ClientSecurity.check_address",
        "if self.ca is not None or self.certificate is not None:",
        "if False:",
    ),
    bug(
        "a token travels to another machine in plaintext",
        SECURITY + "settings_that_plaintext_would_ignore_or_betray_are_refused",
        "workqueue.access.security:ClientSecurity.check_address",
        "not (self.insecure or is_loopback(host))",
        "False",
    ),
    bug(
        "any token opens a server",
        SECURITY + "any_of_the_servers_tokens_opens_it_and_nothing_else_does",
        "workqueue.access.tokens:StaticTokens.verify",
        "if not any(matches):",
        "if not matches:",
    ),
    bug(
        "only the first of several tokens opens a server",
        SECURITY + "any_of_the_servers_tokens_opens_it_and_nothing_else_does",
        "workqueue.access.tokens:StaticTokens.verify",
        "in self._tokens]",
        "in self._tokens[:1]]",
    ),
    bug(
        "a token is accepted by its beginning",
        SECURITY + "any_of_the_servers_tokens_opens_it_and_nothing_else_does",
        "workqueue.access.tokens:StaticTokens.verify",
        "hmac.compare_digest(shown, known)",
        "shown.startswith(known)",
    ),
    bug(
        "an empty list of tokens opens a server to nobody, and nobody is told",
        SECURITY + "what_is_no_token_is_refused_without_repeating_it",
        "workqueue.access.tokens:StaticTokens.__init__",
        "if not self._tokens:",
        "if False:",
        tokens=[],
    ),
    bug(
        "credentials of another kind are taken for a token",
        SECURITY + "a_malformed_header_is_unauthenticated",
        "workqueue.access.tokens:bearer_token",
        'kind.lower() != "bearer" or',
        "",
        header="Basic secret",
    ),
    bug(
        "the last of two authorization headers counts, over gRPC",
        ENTRANCE + "two_authorization_headers_are_refused_even_if_one_is_right",
        "workqueue.access.tokens:bearer_token",
        "if len(authorizations) > 1:",
        "authorizations = authorizations[-1:]\n    if False:",
    ),
    bug(
        "the last of two authorization headers counts, over HTTP",
        BEARER + "two_authorization_headers_are_refused_even_if_one_is_right",
        "workqueue.access.tokens:bearer_token",
        "if len(authorizations) > 1:",
        "authorizations = authorizations[-1:]\n    if False:",
    ),
    bug(
        "a path that ends like a probe needs no token",
        BEARER + "a_path_that_only_ends_like_a_probe_is_none",
        "workqueue.web.bearer:BearerTokens.__call__",
        "_path_within(scope) in self._open_paths",
        "_path_within(scope).endswith(tuple(self._open_paths))",
    ),
    bug(
        "an app that is mounted in another asks probes for a token",
        BEARER + "an_app_that_is_mounted_in_another_asks_for_tokens_as_it_does_alone",
        "workqueue.web.bearer:_path_within",
        'if path.startswith(mounted_at + "/")',
        "if False",
        path="/queue/healthz",
        status=200,
    ),
    bug(
        "a watch of the health needs no token",
        HEALTH + "checks_need_no_token_but_a_watch_that_stays_does",
        "workqueue.rpc.entrance:Entrance.intercept_service",
        "method not in _OPEN",
        "not method.startswith(_HEALTH)",
    ),
    bug(
        "a certificate is not asked for, over gRPC",
        SECURITY + "with_mtls_clients_show_a_certificate",
        "workqueue.rpc.credentials:server_credentials",
        "tls.client_ca is not None",
        "False",
    ),
    bug(
        "a certificate is not asked for, over HTTP",
        BEARER + "mtls_holds_for_http_as_well",
        "workqueue.access.security:ServerTLS._context",
        "ssl.CERT_REQUIRED",
        "ssl.CERT_OPTIONAL",
    ),
    bug(
        "a list of tokens is read once",
        FILES + "a_list_of_accepted_tokens_is_followed",
        "workqueue.access.files:Followed.current",
        "if stamp != self._stamp or self._unsettled(stamp):",
        "if False:",
    ),
    bug(
        "a file that changed within one tick of its clock looks as it was",
        FILES + "a_file_that_changed_again_before_its_clock_ticked_is_read_again",
        "workqueue.access.files:Followed.current",
        " or self._unsettled(stamp)",
        "",
    ),
    bug(
        "a token for another audience is accepted",
        OIDC + "a_token_that_lacks_anything_is_refused_and_told_why",
        "workqueue.access.oidc:OIDCTokens._claims",
        'options={"require": list(_REQUIRED)}',
        'options={"require": list(_REQUIRED), "verify_aud": False}',
        changes={"aud": "https://other"},
        why="another audience",
    ),
    bug(
        "a token of another issuer is accepted",
        OIDC + "a_token_that_lacks_anything_is_refused_and_told_why",
        "workqueue.access.oidc:OIDCTokens._claims",
        "issuer=self._issuer",
        "issuer=None",
        changes={"iss": "https://other"},
        why="another issuer",
    ),
    bug(
        "a token without an end is accepted",
        OIDC + "a_token_that_lacks_anything_is_refused_and_told_why",
        "workqueue.access.oidc:OIDCTokens._claims",
        "list(_REQUIRED)",
        "[]",
        changes={"exp": None},
        why='"exp"',
    ),
    bug(
        "every subject may call",
        OIDC + "only_the_given_subjects_and_verified_addresses_are_accepted",
        "workqueue.access.oidc:OIDCTokens.claims",
        "if self._subjects and",
        "if False and",
    ),
    bug(
        "an e-mail address that nobody verified counts",
        OIDC + "only_the_given_subjects_and_verified_addresses_are_accepted",
        "workqueue.access.oidc:OIDCTokens.claims",
        'if claims.get("email_verified") is True else None',
        "",
    ),
    bug(
        "made-up keys have the issuer asked each time",
        OIDC + "a_new_key_is_found_and_made_up_keys_do_not_hammer_the_issuer",
        "workqueue.access.issuer_keys:IssuerKeys._find",
        "self._clock.steady_us() >= self._next_us and",
        "",
    ),
    bug(
        "an issuer's keys are fetched over http",
        OIDC + "settings_that_would_trust_anybody_are_refused",
        "workqueue.access.issuer_keys:check_issuer_url",
        "(parts.scheme, is_loopback(host)) in _TRUSTED",
        'parts.scheme in ("http", "https")',
        issuer="http://issuer.example",
        audience="https://me",
        why="no https URL",
    ),
]

ANSWERS = [
    bug(
        "a process whose leases are not renewed is alive",
        "tests.dispatcher.test_trigger:test_a_process_whose_leases_are_not_renewed_is_to_be_restarted",
        "dispatcher.health:Health.why_dead",
        "if self._renewer is not None and self._renewer.stalled(now_us):",
        "if False:",
    ),
    bug(
        "a process whose loop stands still is alive",
        "tests.dispatcher.test_loop:test_a_loop_that_does_not_move_is_dead_after_three_poll_periods",
        "dispatcher.health:Health.why_dead",
        "now_us - self._iterated_us > self._patience_us",
        "False",
    ),
    bug(
        "a caller who said wait=0 waits",
        TRIGGER + "a_caller_that_need_not_wait_is_answered_at_once",
        "dispatcher.trigger:_waits",
        '("false", "0")',
        '("false",)',
        wait="0",
    ),
    bug(
        "a look whether the page is there runs a round",
        TRIGGER + "a_look_whether_the_page_is_there_is_no_trigger",
        "dispatcher.trigger:Trigger.app",
        'triggered.methods = {"GET", "POST"}',
        'triggered.methods = {"GET", "POST", "HEAD"}',
    ),
    bug(
        "a receiver whose store is gone is ready",
        HEALTH + "a_receiver_whose_store_is_gone_is_alive_and_not_ready",
        "workqueue.rpc.server:GrpcServer.why_unready",
        'return await self._behind() if self._behind is not None else ""',
        'return ""',
    ),
    bug(
        "a receiver whose store is gone is to be restarted",
        HEALTH + "a_receiver_whose_store_is_gone_is_alive_and_not_ready",
        "workqueue.rpc.health:Health._status",
        'if service == "":\n        return _Status.SERVING\n    if service != self._service:',
        'if service not in ("", self._service):',
    ),
    bug(
        "a server that drains is ready",
        HEALTH + "a_server_that_drains_is_alive_and_not_ready",
        "workqueue.rpc.server:GrpcServer.why_unready",
        "if self._stopping.is_set():",
        "if False:",
    ),
    bug(
        "a receiver does not mind that its process drains",
        HEALTH + "a_receiver_in_a_process_that_drains_is_alive_and_not_ready",
        "workqueue.rpc.receiver:_why_unready",
        '"draining" if drains() else ',
        "",
    ),
    bug(
        "why a store does not work is shown to strangers",
        HEALTH + "why_a_store_cannot_be_used_names_no_address_and_is_logged_once",
        "workqueue.readiness:Readiness._note",
        "self._found = self._shown if trouble",
        "self._found = trouble if trouble",
    ),
    bug(
        "each probe asks the store",
        HEALTH + "a_store_is_asked_once_for_all_who_ask_within_five_seconds",
        "workqueue.readiness:Readiness.why_unready",
        "if self._clock.steady_us() >= self._valid_until_us:",
        "if True:",
    ),
    bug(
        "a receiver whose store hangs is given up before it says so",
        "tests.rpc.test_receiver:test_a_receiver_whose_store_hangs_says_so_before_its_caller_gives_up",
        "workqueue.rpc.receiver:_in_time",
        "max(left, 0.0) * _IN_TIME",
        "max(left, 0.0) * 2",
        method="Process",
    ),
    bug(
        "keys for a receiver that takes no batches are dropped",
        BATCHES + "keys_for_a_receiver_without_batches_go_one_by_one_and_it_is_not_asked_again",
        "workqueue.rpc.client:Client.queue_many",
        "await self._queue_each(list(waiting), _IN_FLIGHT)",
        "",
    ),
    bug(
        "a batch that failed counts as stored",
        BATCHES + "a_store_that_fails_for_a_moment_loses_no_key",
        "workqueue.rpc.client:Client._queue_batch",
        "raise\n        return False",
        "raise\n        return True",
    ),
    bug(
        "a hyperqueue does not look at what its shards answer to a batch",
        BATCHES + "a_batch_that_fails_at_one_shard_is_stored_at_the_others_and_names_it",
        "workqueue.rpc.sharding:Router._pass_all_on",
        "if isinstance(answer, Refusal)",
        "if False",
    ),
    bug(
        "a crowd of requests keeps probes out",
        LIMITS + "requests_that_are_under_way_leave_room_for_probes",
        "workqueue.web.http_limits:Crowd.__call__",
        'if scope["path"] in PROBES:',
        "if False:",
    ),
    bug(
        "a crowd of calls keeps probes out",
        ENTRANCE + "calls_beyond_the_limit_are_unavailable_and_probes_are_answered",
        "workqueue.rpc.entrance:Entrance._read_by_us",
        "counted = not method.startswith(_HEALTH)",
        "counted = True",
    ),
    bug(
        "silent connections keep a probe out",
        LIMITS + "silent_connections_make_way_for_a_probe",
        "workqueue.web.room:Room.enter",
        "if not each.busy",
        "if each.busy",
    ),
]

WIRE = [
    bug(
        "the details of a status have no code",
        STATUSES + "a_final_error_has_gos_code_and_details",
        "workqueue.rpc.statuses:_detailed",
        "code=code.value[0], ",
        "",
    ),
    bug(
        "the details of a status have no text",
        STATUSES + "a_final_error_has_gos_code_and_details",
        "workqueue.rpc.statuses:_detailed",
        "message=short, ",
        "",
    ),
    bug(
        "the details of a status have no reason",
        STATUSES + "a_final_error_of_gos_is_understood_and_ours_is_the_same_bytes",
        "workqueue.rpc.statuses:of_attempt",
        "pb.NoRetryDetails(message=_cut(reason_of(error)))",
        "pb.NoRetryDetails()",
    ),
    bug(
        "the reason of a final error takes the place of its text",
        STATUSES + "a_final_error_of_gos_is_understood_and_ours_is_the_same_bytes",
        "workqueue.rpc.statuses:_marked",
        "kind(final.message, text)",
        "kind(final.message)",
    ),
    bug(
        "the text of an error is longer than its details may be",
        STATUSES + "the_trailers_of_the_longest_error_fit_in_a_header",
        "workqueue.rpc.statuses:_cut",
        "cut(text, MAX_TEXT_BYTES)",
        "text",
    ),
    bug(
        "an outage behind a reconciler looks like one of the reconciler",
        STATUSES + "an_outage_behind_the_reconciler_is_told_from_an_outage_of_the_reconciler",
        "workqueue.rpc.statuses:_detailed",
        "((DETAILS_TRAILER, status.SerializeToString()),)",
        "()",
    ),
    bug(
        "an error is final by its text alone",
        STATUSES + "the_presence_of_the_details_counts_not_their_text",
        "workqueue.rpc.statuses:_marked",
        "if _unpacked(status, final):",
        "if _unpacked(status, final) and final.message:",
    ),
    bug(
        "whatever details a status has, its error is final",
        STATUSES + "any_other_error_may_be_retried",
        "workqueue.rpc.statuses:_unpacked",
        "if packed.Unpack(detail):",
        "if packed.Unpack(detail) or True:",
        trailers=(("grpc-status-details-bin", b"\x08\x02\x1a\x02\x0a\x00"),),
    ),
    bug(
        "a router's own trouble with a shard is called the producer's",
        "tests.rpc.test_sharding:test_a_shard_that_does_not_accept_the_router_is_the_routers_trouble",
        "workqueue.rpc.statuses:of_shard",
        "if code in _ABOUT_THE_CALLER:",
        "if False:",
    ),
]

SERVER_BUGS = [*GUARDS, *ANSWERS, *WIRE]
