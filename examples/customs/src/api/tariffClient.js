// src/api/tariffClient.js
const fetch = require('node-fetch');

async function getTariff(code) {
  // mesh sidecar listens on localhost:15001 and routes "tariff-svc"
  const res = await fetch('http://tariff-svc/tariff?code=' + code);
  return res.json();
}

module.exports = { getTariff };
