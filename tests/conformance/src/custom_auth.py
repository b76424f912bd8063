"""LiteLLM's custom auth: a key's budget is what a file of its name says, so that budgets can be had without LiteLLM's database.

A key that ends in ":taken" is answered with what the proxy's own counter has for that key.
"""

import os
import pathlib

import litellm
from fastapi import HTTPException, Request
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.hooks.proxy_track_cost_callback import ProxyDBLogger

BUDGETS = pathlib.Path(os.environ["CONFORMANCE_BUDGETS"])

# What `cost_tracking()` of the proxy does when it has a database, and only then: without it no reservation would ever be settled.
litellm.logging_callback_manager.add_litellm_callback(ProxyDBLogger())
litellm.logging_callback_manager.add_litellm_async_success_callback(ProxyDBLogger())


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    key, _, question = api_key.partition(":")
    name = key.removeprefix("sk-")
    if not name.replace("-", "").isalnum() or not (BUDGETS / name).exists():
        raise HTTPException(status_code=401, detail="unknown key")
    if question == "taken":
        from litellm.proxy.proxy_server import get_current_spend

        taken = await get_current_spend(counter_key=f"spend:key:{UserAPIKeyAuth(api_key=key).token}", fallback_spend=0.0)
        raise HTTPException(status_code=418, detail=f"taken={taken:.9f};")
    return UserAPIKeyAuth(api_key=key, max_budget=float((BUDGETS / name).read_text()))
