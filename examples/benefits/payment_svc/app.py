from fastapi import FastAPI
from pydantic import BaseModel
app = FastAPI()

class Payment(BaseModel):
    grantId: str
    amount: int

paid = {}  # every execution counts, so that one too many would be seen

@app.post("/pay")
def pay(payment: Payment):
    paid[payment.grantId] = paid.get(payment.grantId, 0) + payment.amount
    return {"grantId": payment.grantId, "status": "paid"}

@app.get("/payments/{grant_id}")
def payments(grant_id: str):
    return {"grantId": grant_id, "paid": paid.get(grant_id, 0)}
