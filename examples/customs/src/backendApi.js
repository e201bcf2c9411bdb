// BackendAPI: first the tariff, then the risk.
const { serve } = require('./service');
const { getTariff } = require('./api/tariffClient');
const { getRisk } = require('./api/riskClient');

serve({
  '/declaration': async (query) => {
    const tariff = await getTariff(encodeURIComponent(query.get('code')));
    const risk = await getRisk(encodeURIComponent(query.get('amount')));
    return { code: query.get('code'), ...tariff, ...risk };
  },
});
