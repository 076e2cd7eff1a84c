"""A tenant's tables."""

from django.db import models


class Account(models.Model):
    """The same table that Alembic's first revision makes."""

    id = models.AutoField(primary_key=True)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Called as there."""

        db_table = "accounts"


class Project(models.Model):
    """The same table, with the column and the index of the measured migration."""

    id = models.AutoField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.CASCADE)
    title = models.CharField(max_length=200)
    archived_at = models.DateTimeField(null=True)

    class Meta:
        """Called as there."""

        db_table = "projects"
        indexes = (models.Index(fields=["archived_at"], name="ix_projects_archived_at"),)
