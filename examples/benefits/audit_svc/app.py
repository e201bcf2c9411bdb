from fastapi import FastAPI
from pydantic import BaseModel
app = FastAPI()

class Entry(BaseModel):
    event: str
    grantId: str

entries = []

@app.post("/log")
def log(entry: Entry):
    entries.append(entry)
    return {"entries": len(entries)}

@app.get("/log")
def read():
    return {"log": entries}
