"""Who may call our servers, and as whom we call others: TLS, tokens, OIDC, Google identities.

Read `security` first: it has what servers and clients are given. Where tokens come from, and who checks them, is in the
other files.
"""
