// src/api/riskClient.js
const fetch = require('node-fetch');

async function getRisk(amount) {
  const res = await fetch('http://risk-svc/risk?amount=' + amount);
  return res.json();
}

module.exports = { getRisk };
