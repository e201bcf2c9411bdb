from service import serve

serve("delivery-tracker", {"/health": lambda: "OK", "/track": lambda: "in the mail"})
