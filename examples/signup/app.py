"""A sign-up that makes its customer's tenant before it answers.

Run it beside a tenants.yaml, or name one:

    ORCHESTRATOR_CONFIG=/srv/app/tenants.yaml uvicorn app:app

It holds one desk open for as long as it runs. A sign-up that was cut off (a restart, a server that was away) is sent
again by the customer's browser, and goes on where it ended.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, StringConstraints

import orchestrator

#: What a customer may be called: it becomes a schema's name and a part of addresses.
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,40}$")]


class SignUp(BaseModel):
    """What the form sends."""

    slug: Slug
    plan: str = "free"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the desk before the first sign-up, and close it after the last."""
    fleet = orchestrator.load(os.environ.get("ORCHESTRATOR_CONFIG", "tenants.yaml"), may_be_empty=True)
    async with orchestrator.onboarding(fleet) as desk:
        app.state.desk = desk
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/signup", status_code=201)
async def sign_up(customer: SignUp, request: Request, response: Response) -> dict[str, str]:
    """Make the customer's tenant: 201 when it is made, 200 when it was there already, 409 for a name that is taken."""
    try:
        result = await request.app.state.desk.onboard({"id": customer.slug, "tags": [customer.plan]})
    except orchestrator.OrchestratorError as error:
        raise HTTPException(409, error.message) from error
    (tenant,) = result.tenants
    if tenant.status == "already_current":
        response.status_code = 200
    elif tenant.status == "blocked":
        raise HTTPException(409, "this name is taken")
    elif tenant.status != "succeeded":
        # What stands in the way is for the operator, in the journal and its log; not for the customer.
        raise HTTPException(503, "not now; please try again")
    return {"tenant": tenant.tenant, "status": tenant.status}
