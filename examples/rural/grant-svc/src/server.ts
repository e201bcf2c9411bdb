// Broadband-expansion grants: the farmer's request, handed to the payment service.
import { grantId, serve } from '../../service.ts';
import { pay } from './pay.ts';

serve({ 'POST /pay': (body) => pay(grantId(body)) });
