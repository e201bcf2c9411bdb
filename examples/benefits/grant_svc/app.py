import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
app = FastAPI()

class Update(BaseModel):
    grantId: str
    amount: int

def tell(service, path, body):
    try:
        return httpx.post(f"http://{service}{path}", json=body).raise_for_status().json()
    except httpx.HTTPError as error:
        raise HTTPException(502, f"{service}: {error}") from error

@app.post("/grant/update")
def update(grant: Update):
    payment = tell("payment-svc", "/pay", {"grantId": grant.grantId, "amount": grant.amount})
    tell("audit-svc", "/log", {"event": "grant updated", "grantId": grant.grantId})
    return {"grantId": grant.grantId, "status": "updated", "payment": payment["status"]}
