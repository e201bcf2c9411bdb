from service import serve

serve("fee-payment", {"/health": lambda: "OK", "/pay": lambda: "paid"})
