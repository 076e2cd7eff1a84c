"""django-tenants as its documentation sets it up, with one app for the tenants: the tables that the others have."""

import os
from urllib.parse import unquote, urlsplit

_address = urlsplit(os.environ["BENCH_URL"])

SECRET_KEY = "of no use: nothing is served"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": _address.path.lstrip("/"),
        "USER": unquote(_address.username or ""),
        "PASSWORD": unquote(_address.password or ""),
        "HOST": _address.hostname,
        "PORT": _address.port,
    }
}
DATABASE_ROUTERS = ("django_tenants.routers.TenantSyncRouter",)
SHARED_APPS = ("django_tenants", "django.contrib.contenttypes", "customers")
TENANT_APPS = ("saas",)
INSTALLED_APPS = (*SHARED_APPS, *TENANT_APPS)
TENANT_MODEL = "customers.Client"
TENANT_DOMAIN_MODEL = "customers.Domain"
# Of the multiprocessing executor: as many processes, each with one connection, as the others have connections.
TENANT_MULTIPROCESSING_MAX_PROCESSES = int(os.environ.get("BENCH_AT_ONCE", "2"))
