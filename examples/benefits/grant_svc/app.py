import httpx
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
app = FastAPI()

FORWARDED = ("traceparent", "x-trace-id")  # or the trace of a request ends here

class Update(BaseModel):
    grantId: str
    amount: int

@app.post("/grant/update")
def update(grant: Update, request: Request):
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}

    def tell(service, path, body):
        try:
            return httpx.post(f"http://{service}{path}", json=body, headers=headers).raise_for_status().json()
        except httpx.HTTPError as error:
            raise HTTPException(502, f"{service}: {error}") from error

    payment = tell("payment-svc", "/pay", {"grantId": grant.grantId, "amount": grant.amount})
    tell("audit-svc", "/log", {"event": "grant updated", "grantId": grant.grantId})
    return {"grantId": grant.grantId, "status": "updated", "payment": payment["status"]}
