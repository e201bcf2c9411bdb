from fastapi import FastAPI
from fastapi.responses import HTMLResponse
app = FastAPI()

PAGE = """<!doctype html>
<title>benefits.gov</title>
<h1>Housing grant</h1>
<form onsubmit="update(grant.value, amount.value); return false">
  <input id="grant" value="G-123"> <input id="amount" type="number" value="1200"> <button>Update</button>
</form>
<pre id="answer"></pre>
<script>
  async function update(grantId, amount) {
    const body = JSON.stringify({grantId, amount: Number(amount)});
    const headers = {"Content-Type": "application/json"};
    const res = await fetch("/grant/update", {method: "POST", headers, body});
    answer.textContent = await res.text();
  }
</script>
"""

@app.get("/", response_class=HTMLResponse)
def page():
    return PAGE
