"""The measured one: a column and an index."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """What Alembic's second revision does."""

    dependencies = (("saas", "0001_tables"),)
    operations = (
        migrations.AddField("project", "archived_at", models.DateTimeField(null=True)),
        migrations.AddIndex("project", models.Index(fields=["archived_at"], name="ix_projects_archived_at")),
    )
