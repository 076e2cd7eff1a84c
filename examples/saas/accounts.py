"""Who uses the service, and on what plan."""

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from examples.saas.base import Base, CreatedAt


class Plan(Base):
    """One line of the price list."""

    __tablename__ = "plans"
    __table_args__ = (CheckConstraint("monthly_cents >= 0", name="monthly_cents_not_negative"),)

    code: Mapped[str] = mapped_column(String(30), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    monthly_cents: Mapped[int]
    #: Members an account on this plan may have; ``None`` for any number.
    seats: Mapped[int | None]


class Account(Base):
    """A team that works together and gets one bill."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    slug: Mapped[str] = mapped_column(String(63), unique=True)
    created_at: Mapped[CreatedAt]
    plan_code: Mapped[str] = mapped_column(ForeignKey("plans.code"), server_default="free")


class User(Base):
    """A person who can sign in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    full_name: Mapped[str] = mapped_column(String(200))
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[CreatedAt]


class Membership(Base):
    """A user's place in an account."""

    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("account_id", "user_id"),
        CheckConstraint("role IN ('owner', 'admin', 'member')", name="role"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(20), server_default="member")
