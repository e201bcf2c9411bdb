//! Resources as people read them, whatever their kind: the fields of the contract by their names, with times, enumerations and
//! names of services as words. Nothing here knows a kind, so a new one is shown as soon as it travels.

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hms_formats::{Source, stored};
use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::resource::Resource;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

/// The message that carries any resource.
const CARRIER: &str = "hms.v1.Resource";
/// The message of a service's name.
const NAME: &str = "hms.v1.ServiceName";
/// How the name of a field ends that counts microseconds.
const MICROSECONDS: &str = "_us";
/// Units of times beside microseconds, the largest first.
const UNITS: [(u64, &str); 4] = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1000, "ms")];

/// Knows the contracts.
#[derive(Debug, Clone)]
pub(crate) struct Shower(DescriptorPool);

impl Shower {
    /// One with the contracts of this release. They are part of the program; without them nothing could be shown at all.
    pub(crate) fn new() -> Self {
        Self(DescriptorPool::decode(hms_wire::DESCRIPTORS).unwrap_or_default())
    }

    /// The fields of a resource. Nothing is left out but what is empty.
    pub(crate) fn show(&self, resource: &Resource) -> Value {
        let Some(carrier) = self.0.get_message_by_name(CARRIER) else { return Value::Null };
        let Ok(message) = DynamicMessage::decode(carrier, hms_wire::encode(resource).as_slice()) else {
            return Value::Null;
        };
        // The one field that is a message is the resource; the other is the level, which says nothing to people.
        let inner = message.fields().find_map(|(_, value)| match value {
            Field::Message(inner) => Some(object(inner)),
            _ => None,
        });
        inner.unwrap_or(Value::Null)
    }
}

fn object(message: &DynamicMessage) -> Value {
    if message.descriptor().full_name() == NAME {
        return name(message);
    }
    let mut shown = Map::new();
    for field in message.descriptor().fields() {
        if !message.has_field(&field) && (field.supports_presence() || is_empty_by_default(&field)) {
            continue;
        }
        let value = message.get_field(&field);
        let (label, value) = match (field.name().strip_suffix(MICROSECONDS), value.as_ref()) {
            (Some(bare), Field::U64(microseconds)) => (bare, Value::String(time(*microseconds))),
            (_, value) => (field.name(), shown_field(value, &field.kind())),
        };
        shown.insert(label.to_owned(), value);
    }
    Value::Object(shown)
}

/// The resources of files that hold them as they are shown, with everything that is wrong there.
pub fn resources(sources: &[Source]) -> (Vec<Resource>, Vec<Finding>) {
    let shower = Shower::new();
    stored::translate(sources, |written| shower.read(written))
}

/// What a field is called for people.
fn label(field: &FieldDescriptor) -> &str {
    let is_count = matches!(field.kind(), Kind::Uint64);
    field.name().strip_suffix(MICROSECONDS).filter(|_| is_count).unwrap_or_else(|| field.name())
}

/// Numbers, truth values and enumerations say something when they are zero; everything else is just not there.
fn is_empty_by_default(field: &FieldDescriptor) -> bool {
    field.is_list() || field.is_map() || matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_))
}

fn shown_field(value: &Field, kind: &Kind) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => STANDARD.encode(value).into(),
        Field::EnumNumber(number) => word(*number, kind),
        Field::Message(message) => object(message),
        Field::List(values) => values.iter().map(|value| shown_field(value, kind)).collect(),
        Field::Map(entries) => {
            let of = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let mut entries: Vec<(String, Value)> =
                entries.iter().map(|(key, value)| (key_text(key), shown_field(value, &of))).collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(entries.into_iter().collect())
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// `BALANCE_ROUND_ROBIN` of the enumeration `Balance` is `round-robin`.
fn word(number: i32, kind: &Kind) -> Value {
    let Kind::Enum(descriptor) = kind else { return number.into() };
    let Some(value) = descriptor.get_value(number) else { return number.into() };
    let prefix = descriptor.name().chars().flat_map(|c| {
        let gap = c.is_ascii_uppercase().then_some('_');
        gap.into_iter().chain(std::iter::once(c.to_ascii_uppercase()))
    });
    let prefix: String = prefix.skip(1).chain(std::iter::once('_')).collect();
    let bare = value.name().strip_prefix(&prefix).unwrap_or_else(|| value.name());
    bare.to_ascii_lowercase().replace('_', "-").into()
}

/// A service as people write it.
fn name(message: &DynamicMessage) -> Value {
    let part = |label: &str| message.get_field_by_name(label).and_then(|value| value.as_str().map(ToOwned::to_owned));
    let (namespace, own) = (part("namespace").unwrap_or_default(), part("name").unwrap_or_default());
    match ServiceName::in_namespace(&namespace, &own) {
        Ok(name) => name.to_string().into(),
        Err(_) => format!("{own}.{namespace}").into(),
    }
}

/// In the largest unit that leaves no rest.
fn time(microseconds: u64) -> String {
    let whole = UNITS.iter().find(|(unit, _)| microseconds > 0 && microseconds.is_multiple_of(*unit));
    match whole {
        Some((unit, word)) => format!("{}{word}", microseconds / unit),
        None if microseconds == 0 => "0s".to_owned(),
        None => format!("{microseconds}us"),
    }
}

#[cfg(test)]
mod tests {
    use hms_model::policy::{Balance, Retry, Timeouts};
    use hms_model::resource::{Declaration, Defaults, Gateway};
    use hms_model::split::{Share, Split};
    use serde_json::json;

    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }

    #[test]
    fn a_resource_is_shown_in_words() {
        let share = |version: &str, weight: u32| Share { service: service("pay"), version: version.to_owned(), weight };
        let split = Resource::Split(Split { service: service("pay"), shares: vec![share("v1", 90), share("v2", 0)] });
        let shares = json!([
            {"service": "pay", "version": "v1", "weight": 90},
            {"service": "pay", "version": "v2", "weight": 0},
        ]);
        assert_eq!(Shower::new().show(&split), json!({"service": "pay", "shares": shares}));
        let mut declaration = Declaration::new(service("pay"));
        declaration.overlay.balance = Some(Balance::default());
        declaration.overlay.retry = Some(Retry::default());
        declaration.overlay.timeouts = Some(Timeouts::default());
        let shown = Shower::new().show(&Resource::Declaration(declaration));
        assert_eq!(shown["name"], "pay");
        assert_eq!(shown["protocol"], "detect");
        assert_eq!(shown["overlay"]["retry"]["backoff_other"], "25ms");
        assert_eq!(shown["overlay"]["balance"].as_str().map(|word| word.contains(char::is_uppercase)), Some(false));
        assert_eq!(shown["identities"], Value::Null);
    }

    #[test]
    fn every_kind_that_is_stored_can_be_shown() {
        let resources = [
            Resource::Defaults(Defaults::default()),
            Resource::Declaration(Declaration::new(service("a"))),
            Resource::Gateway(Gateway::default()),
            Resource::Egress(hms_model::policy::Egress::default()),
        ];
        for resource in resources {
            let shown = Shower::new().show(&resource);
            assert!(shown.as_object().is_some_and(|fields| !fields.is_empty()), "{resource:?}: {shown}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (microseconds, text) in
            [(0, "0s"), (250, "250us"), (25_000, "25ms"), (15_000_000, "15s"), (300_000_000, "5m")]
        {
            assert_eq!(time(microseconds), text);
        }
    }
}
