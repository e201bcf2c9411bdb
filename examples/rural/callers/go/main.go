// The same call as in grant-svc/src/pay.ts, in Go.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	body, err := json.Marshal(map[string]string{"grantId": os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	res, err := http.Post("http://payment-svc/pay", "application/json", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		log.Fatal(err)
	}
}
