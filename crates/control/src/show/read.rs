//! The way back: a resource from its fields as they are shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hms_formats::stored::{Complaint, Step, Written};
use hms_model::finding::{Finding, did_you_mean};
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};
use hms_model::resource::Resource;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value as Field,
};
use serde_json::Value;

use super::{CARRIER, MICROSECONDS, NAME, Shower, UNITS, label, word};

/// A field, or nothing with a complaint.
type Read = Option<Field>;

impl Shower {
    /// The resource that is written so. What its contract does not know is a complaint, and so is what it bounds.
    pub(crate) fn read(&self, written: &Written) -> Result<Resource, Vec<Complaint>> {
        let whole = |message: String| vec![(Vec::new(), Finding::error(2105, message))];
        let kind = written.key.kind.as_str();
        let carrier = self.0.get_message_by_name(CARRIER).ok_or_else(|| whole("there are no contracts".to_owned()))?;
        let field = carrier.fields().find(|field| field.name().replace('_', "") == kind);
        let Some((field, Kind::Message(descriptor))) = field.map(|field| (field.clone(), field.kind())) else {
            return Err(whole(format!("a {kind} cannot be configured")));
        };
        let mut reading = Reading { path: Vec::new(), complaints: Vec::new() };
        let inner = reading.message(&descriptor, &written.spec);
        let (Some(inner), true) = (inner, reading.complaints.is_empty()) else { return Err(reading.complaints) };
        let mut message = DynamicMessage::new(carrier);
        message.set_field(&field, inner);
        message.set_field_by_name("requires", Field::U32(1));
        let resource = hms_wire::decode(&message.encode_to_vec()).map_err(|error| whole(error.to_string()))?;
        if resource.key() == written.key {
            return Ok(resource);
        }
        let finding = Finding::error(
            2105,
            format!("this is `{}`, and its fields are those of `{}`", written.key, resource.key()),
        );
        Err(vec![(Vec::new(), finding.fix("correct the name, or the fields"))])
    }
}

/// Where it reads, and what it found.
struct Reading {
    path: Vec<Step>,
    complaints: Vec<Complaint>,
}

impl Reading {
    fn complain(&mut self, finding: Finding) -> Read {
        self.complaints.push((self.path.clone(), finding));
        None
    }

    /// A value that is of another kind.
    fn wants(&mut self, what: &str, value: &Value) -> Read {
        let shown: String = value.to_string().chars().take(40).collect();
        self.complain(Finding::error(2104, format!("{what} is wanted, not {shown}")))
    }

    fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let read = read(self);
        self.path.pop();
        read
    }

    fn message(&mut self, descriptor: &MessageDescriptor, value: &Value) -> Read {
        if descriptor.full_name() == NAME {
            return self.name(descriptor, value);
        }
        let Value::Object(members) = value else { return self.wants("keys with values", value) };
        let mut message = DynamicMessage::new(descriptor.clone());
        for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            self.within(Step::Key(key.clone()), |reading| reading.member(&mut message, key, value));
        }
        Some(Field::Message(message))
    }

    fn member(&mut self, message: &mut DynamicMessage, key: &str, value: &Value) {
        let descriptor = message.descriptor();
        let Some(field) = descriptor.fields().find(|field| label(field) == key) else {
            let known: Vec<String> = descriptor.fields().map(|field| label(&field).to_owned()).collect();
            let finding = match did_you_mean(key, known.iter().map(String::as_str)) {
                Some(near) => Finding::error(2103, format!("unknown key `{key}`; did you mean `{near}`?")),
                None => Finding::error(2103, format!("unknown key `{key}`")),
            };
            self.complain(finding.because(format!("known here: {}", known.join(", "))));
            return;
        };
        let other = field.containing_oneof().and_then(|one| one.fields().find(|other| message.has_field(other)));
        if let Some(other) = other {
            self.complain(Finding::error(2110, format!("`{key}` and `{}` exclude each other", label(&other))));
        } else if let Some(read) = self.field(&field, value) {
            message.set_field(&field, read);
        }
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) -> Read {
        if field.is_map() {
            return self.map(field, value);
        }
        if !field.is_list() {
            return self.value(&field.kind(), is_time(field), value);
        }
        let Value::Array(items) = value else { return self.wants("a list", value) };
        let read = items.iter().enumerate().map(|(place, item)| {
            self.within(Step::Item(place), |reading| reading.value(&field.kind(), is_time(field), item))
        });
        // Every item is read, so that every mistake is said.
        let read: Vec<Read> = read.collect();
        read.into_iter().collect::<Option<Vec<Field>>>().map(Field::List)
    }

    fn map(&mut self, field: &FieldDescriptor, value: &Value) -> Read {
        let (Value::Object(members), Kind::Message(entry)) = (value, field.kind()) else {
            return self.wants("keys with values", value);
        };
        let of = entry.map_entry_value_field();
        let mut entries = std::collections::HashMap::new();
        for (key, value) in members {
            let read = self.within(Step::Key(key.clone()), |reading| reading.value(&of.kind(), false, value))?;
            entries.insert(MapKey::String(key.clone()), read);
        }
        Some(Field::Map(entries))
    }

    fn value(&mut self, kind: &Kind, is_time: bool, value: &Value) -> Read {
        let read = match kind {
            Kind::Message(descriptor) => return self.message(descriptor, value),
            Kind::Enum(descriptor) => return self.word(descriptor, value),
            Kind::String => text(value).map(Field::String),
            Kind::Bytes => {
                let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
                decoded.map(|bytes| Field::Bytes(bytes.into()))
            }
            Kind::Uint64 if is_time => value.as_str().and_then(microseconds).map(Field::U64),
            Kind::Bool => value.as_bool().map(Field::Bool),
            Kind::Uint32 | Kind::Fixed32 => {
                value.as_u64().and_then(|number| u32::try_from(number).ok()).map(Field::U32)
            }
            Kind::Uint64 | Kind::Fixed64 => value.as_u64().map(Field::U64),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                value.as_i64().and_then(|number| i32::try_from(number).ok()).map(Field::I32)
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => value.as_i64().map(Field::I64),
            Kind::Double => value.as_f64().map(Field::F64),
            // No contract has one; narrowing would change what was written.
            Kind::Float => None,
        };
        let what = match kind {
            Kind::String => "a text",
            Kind::Bytes => "a text in base64",
            Kind::Uint64 if is_time => "a time such as 250ms",
            Kind::Bool => "true or false",
            _ => "a number within its bounds",
        };
        read.or_else(|| self.wants(what, value))
    }

    /// An enumeration by its word.
    fn word(&mut self, descriptor: &EnumDescriptor, value: &Value) -> Read {
        let kind = Kind::Enum(descriptor.clone());
        let words: Vec<(Value, i32)> =
            descriptor.values().map(|one| (word(one.number(), &kind), one.number())).collect();
        if let Some((_, number)) =
            words.iter().find(|(word, number)| word == value || value.as_i64() == Some((*number).into()))
        {
            return Some(Field::EnumNumber(*number));
        }
        let known: Vec<&str> = words.iter().filter_map(|(word, _)| word.as_str()).collect();
        self.wants(&format!("one of {}", known.join(", ")), value)
    }

    /// A service as people write it.
    fn name(&mut self, descriptor: &MessageDescriptor, value: &Value) -> Read {
        // As it is shown: no suffix of the mesh stands behind it.
        let shown = |text: &str| match text.split_once('.') {
            None => ServiceName::in_namespace(DEFAULT_NAMESPACE, text).ok(),
            Some((name, namespace)) => ServiceName::in_namespace(namespace, name).ok(),
        };
        let Some(name) = value.as_str().and_then(shown) else {
            return self.wants("the name of a service", value);
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field_by_name("namespace", Field::String(name.namespace().to_owned()));
        message.set_field_by_name("name", Field::String(name.name().to_owned()));
        Some(Field::Message(message))
    }
}

/// Whether a field counts microseconds.
fn is_time(field: &FieldDescriptor) -> bool {
    field.name().ends_with(MICROSECONDS) && matches!(field.kind(), Kind::Uint64)
}

/// A text; what looks like a number or a truth value is one as well.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `250ms`, as it is shown.
fn microseconds(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (factor, _) = UNITS.iter().chain(&[(1, "us")]).find(|(_, word)| *word == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hms_formats::{Source, objects};
    use hms_model::http_route::{Backend, HttpRoute, HttpRule, Parent};
    use hms_model::policy::authorization::{AllowRule, AuthorizationPolicy, Source as Caller};
    use hms_model::policy::stamps::Stamp;
    use hms_model::policy::{Balance, Limits, Outlier, Probe, RateLimit, Retry, Stamps, Timeouts};
    use hms_model::resource::{Declaration, Defaults, Gateway, Overlay};
    use hms_model::route::{Match, Route, Rule};
    use hms_model::spiffe::SpiffeId;
    use hms_model::split::{Share, Split};
    use serde_json::json;

    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::from_host(name, "default").unwrap()
    }

    fn back(resource: &Resource) -> Result<Resource, Vec<Complaint>> {
        let shower = Shower::new();
        shower.read(&Written { key: resource.key(), spec: shower.show(resource) })
    }

    fn complaints(key: &Resource, spec: Value) -> Vec<String> {
        let found = Shower::new().read(&Written { key: key.key(), spec }).unwrap_err();
        found.into_iter().map(|(steps, finding)| format!("{steps:?} {}", finding.message)).collect()
    }

    fn split() -> Resource {
        let share = |version: &str, weight| Share { service: service("pay.prod"), version: version.to_owned(), weight };
        Resource::Split(Split { service: service("pay"), shares: vec![share("1", 0), share("", 90)] })
    }

    #[test]
    fn what_is_shown_is_read_as_what_it_was() {
        let overlay = Overlay {
            retry: Some(Retry::default()),
            timeouts: Some(Timeouts { request: Some(Duration::from_micros(1_000_001)), ..Timeouts::default() }),
            outlier: Some(Outlier::default()),
            balance: Some(Balance::default()),
            limits: Some(Limits::default()),
            keep_alive: None,
            probe: Some(Probe::default()),
        };
        let rule =
            |source| AllowRule { source, matches: vec![Match::parse("GET /a/*").unwrap()], origin: "m:1".to_owned() };
        let allow = vec![rule(Caller::Any), rule(Caller::Gateway), rule(Caller::Service(service("web.prod")))];
        let identities = vec![SpiffeId::parse("spiffe://k3.hms/ns/default/sa/pay").unwrap()];
        let authorization = Some(AuthorizationPolicy { allow });
        let limit = Some(RateLimit::parse("20 req/min").unwrap());
        let rules = vec![Rule { matches: Match::parse("/x").unwrap(), rate_limit: limit, origin: String::new() }];
        for resource in [
            Resource::Declaration(Declaration {
                identities,
                overlay,
                authorization,
                ..Declaration::new(service("pay"))
            }),
            Resource::Declaration(Declaration::new(service("a.b"))),
            // What ends as the host names of the mesh do is a namespace here.
            Resource::Declaration(Declaration::new(ServiceName::in_namespace("mesh", "web").unwrap())),
            Resource::Defaults(Defaults::default()),
            Resource::Gateway(Gateway::default()),
            Resource::Egress(hms_model::policy::Egress::default()),
            Resource::Route(Route { service: service("pay"), rules }),
            Resource::Stamps(Stamps { off: [Stamp::Retry].into() }),
            split(),
        ] {
            assert_eq!(back(&resource), Ok(resource));
        }
    }

    #[test]
    fn a_route_of_another_format_comes_back_whole() {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: \
                    [{group: '', kind: Service, name: pay}]\n  rules:\n  - matches: [{path: {type: PathPrefix, value: /a}, \
                    method: GET, headers: [{name: x-a, value: b}], queryParams: [{name: q, value: 'true'}]}]\n    filters: \
                    [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-b, value: c}], remove: [x-d]}}, \
                    {type: RequestMirror, requestMirror: {backendRef: {name: old, port: 80}, percent: 5}}]\n    timeouts: \
                    {request: 3s}\n    backendRefs: [{name: pay, port: 80, weight: 0}, {name: new, namespace: x, port: 81}]\n";
        let (objects, findings) = objects::translate(&[Source::new("r.yaml", text)]);
        let route = objects.routes.first().cloned().unwrap_or_else(|| panic!("{findings:?}"));
        assert!(route.rules[0].backends[1].refused.is_some());
        let route = Resource::HttpRoute(route);
        assert_eq!(back(&route), Ok(route));
        let parents = vec![Parent::Gateway, Parent::Service { service: service("a"), port: Some(7) }];
        let rules = vec![HttpRule::to(vec![Backend::all(service("b"))])];
        let bare =
            Resource::HttpRoute(HttpRoute { name: service("r.ns"), parents, hosts: vec!["a.b".to_owned()], rules });
        assert_eq!(back(&bare), Ok(bare));
    }

    #[test]
    fn every_mistake_is_said_with_its_place() {
        let shares = json!([{"service": "pay", "wieght": 9}, {"service": "p y", "weight": -1}, 7]);
        assert_eq!(
            complaints(&split(), json!({"service": "pay", "shares": shares})),
            [
                r#"[Key("shares"), Item(0), Key("wieght")] unknown key `wieght`; did you mean `weight`?"#,
                r#"[Key("shares"), Item(1), Key("service")] the name of a service is wanted, not "p y""#,
                r#"[Key("shares"), Item(1), Key("weight")] a number within its bounds is wanted, not -1"#,
                r#"[Key("shares"), Item(2)] keys with values is wanted, not 7"#,
            ]
        );
        let other = complaints(&split(), json!({"service": "other", "shares": [{"service": "a", "weight": 1}]}));
        assert_eq!(other, ["[] this is `split/default/pay`, and its fields are those of `split/default/other`"]);
        let declaration = Resource::Declaration(Declaration::new(service("pay")));
        let spec = json!({"name": "pay", "protocol": "htpp", "overlay": {"timeouts": {"connect": "1 week"}}});
        let found = complaints(&declaration, spec);
        assert!(found[0].contains("one of detect, http, http2, grpc, tcp, tls"), "{found:?}");
        assert!(found[1].contains("a time such as 250ms is wanted"), "{found:?}");
        let spec = json!({"name": "pay", "authorization": {"allow": [{"any": true, "gateway": true}]}});
        let found = complaints(&declaration, spec);
        assert!(found[0].contains("`gateway` and `any` exclude each other"), "{found:?}");
    }

    #[test]
    fn times_are_read_as_they_are_shown() {
        for count in [0, 250, 25_000, 15_000_000, 300_000_000, 7_200_000_000] {
            assert_eq!(microseconds(&super::super::time(count)), Some(count));
        }
        for text in ["", "5", "s", "1 s", "-1s", "99999999999999999999h", "9999999999999999h"] {
            assert_eq!(microseconds(text), None, "{text}");
        }
    }
}
