"""What the accounts owe, and the record of what happened."""

from datetime import date
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from examples.saas.base import Base, CreatedAt


class Invoice(Base):
    """One bill. Amounts are whole cents."""

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("account_id", "number"),
        CheckConstraint("due_on >= issued_on", name="due_after_issue"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    number: Mapped[str] = mapped_column(String(30))
    currency: Mapped[str] = mapped_column(String(3), server_default="EUR")
    issued_on: Mapped[date]
    due_on: Mapped[date]
    status: Mapped[str] = mapped_column(
        Enum("draft", "sent", "paid", "void", name="invoice_status"), server_default="draft"
    )
    total_cents: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class InvoiceLine(Base):
    """One position of an invoice."""

    __tablename__ = "invoice_lines"
    __table_args__ = (
        UniqueConstraint("invoice_id", "position"),
        CheckConstraint("quantity > 0", name="quantity_positive"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int] = mapped_column(ForeignKey("invoices.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(SmallInteger)
    description: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int] = mapped_column(server_default="1")
    unit_price_cents: Mapped[int] = mapped_column(BigInteger)


class AuditEntry(Base):
    """Who did what. Written to by a trigger on invoices too."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "account_id", "created_at"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    action: Mapped[str] = mapped_column(String(60))
    details: Mapped[dict[str, Any]] = mapped_column(
        JSON().with_variant(JSONB, "postgresql"), server_default=text("'{}'")
    )
    created_at: Mapped[CreatedAt]
