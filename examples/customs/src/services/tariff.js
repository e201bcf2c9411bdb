// TariffSvc: what is due for a code of goods.
const { serve } = require('../service');

const rates = { 123: '5%', 456: '12%' };

serve({ '/tariff': (query) => ({ rate: rates[query.get('code')] ?? '0%' }) });
