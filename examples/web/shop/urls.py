"""`POST /customers` adds a customer; one who is called `nobody` is taken back."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from examples.web.shop.models import Customer


def create(request: HttpRequest) -> HttpResponse:
    """Add a customer, in a transaction that may be rolled back."""
    with transaction.atomic():
        customer = Customer.objects.create(name=request.POST["name"])
        if customer.name == "nobody":
            transaction.set_rollback(True)
            return JsonResponse({"error": "nobody is no customer"}, status=400)
    return JsonResponse({"id": customer.pk}, status=201)


urlpatterns = [path("customers", create)]
