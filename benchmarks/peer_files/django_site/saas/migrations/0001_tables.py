"""The tables; every tenant has them before."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Accounts and projects."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            "Account",
            fields=[
                ("id", models.AutoField(primary_key=True)),
                ("name", models.CharField(max_length=100)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"db_table": "accounts"},
        ),
        migrations.CreateModel(
            "Project",
            fields=[
                ("id", models.AutoField(primary_key=True)),
                ("account", models.ForeignKey("saas.Account", on_delete=models.CASCADE)),
                ("title", models.CharField(max_length=200)),
            ],
            options={"db_table": "projects"},
        ),
    )
