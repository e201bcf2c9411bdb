// RiskSvc: how closely to look at goods of this worth.
const { serve } = require('../service');

serve({ '/risk': (query) => ({ risk: Number(query.get('amount')) >= 10000 ? 'high' : 'low' }) });
