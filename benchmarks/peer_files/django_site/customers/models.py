"""Who the tenants are."""

from django_tenants.models import DomainMixin, TenantMixin


class Client(TenantMixin):
    """One tenant."""


class Domain(DomainMixin):
    """Its address, which django-tenants wants a model for."""
