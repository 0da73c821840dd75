//! What the JSON schema says of a value, in the few forms that the cluster file uses. The schema comes from the types, so
//! that checks, editors and types cannot disagree.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Cluster;
use crate::quantity::{Bytes, Cpus, QuantityError, Span};
use crate::{ClusterName, NodeName};

/// What the schema is known as.
const SCHEMA_ID: &str = "https://bivouac.dev/schema/v1alpha1/cluster.schema.json";

/// What a value may be.
#[derive(Debug)]
pub(super) enum Shape {
    /// A mapping with these fields and no others.
    Fields(BTreeMap<String, Field>),
    /// A mapping with exactly one of these fields.
    Choice(BTreeMap<String, Shape>),
    /// A mapping with keys of the user's own.
    Map(Box<Shape>),
    List(Box<Shape>),
    /// One of these words.
    Words(Vec<String>),
    Text(Format),
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        min: u64,
        max: u64,
    },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// What text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Any,
    ClusterName,
    Bytes,
    Cpus,
    Span,
    Cidr,
    HostIp,
    NodeName,
}

impl Format {
    /// Amounts may be written as numbers.
    pub(super) const fn is_amount(self) -> bool {
        matches!(self, Self::Bytes | Self::Cpus | Self::Span)
    }

    /// What is wrong with `text`: code, message and help.
    pub(super) fn check(self, text: &str) -> Result<(), (&'static str, String, &'static str)> {
        let amount = |error: QuantityError, help| ("spec.invalid_amount", error.to_string(), help);
        match self {
            Self::Any => Ok(()),
            Self::ClusterName => text.parse::<ClusterName>().map(drop).map_err(|error| {
                let help = "Choose a short name of lower-case letters, digits and `-`.";
                ("spec.invalid_name", error.to_string(), help)
            }),
            Self::Bytes => text.parse::<Bytes>().map(drop).map_err(|error| {
                amount(error, "Write a number and a unit: KiB, MiB, GiB, kB, MB or GB.")
            }),
            Self::Cpus => text.parse::<Cpus>().map(drop).map_err(|error| {
                amount(error, "Write a number of CPUs, or thousandths of one with `m`.")
            }),
            Self::Span => text
                .parse::<Span>()
                .map(drop)
                .map_err(|error| amount(error, "Write a number and a unit: ms, s, m or h.")),
            Self::Cidr => text.parse::<ipnet::IpNet>().map(drop).map_err(|_| {
                let message = format!("`{text}` is no network");
                let help =
                    "Write an address, a slash and the length of the prefix: `10.244.0.0/16`.";
                ("spec.invalid_cidr", message, help)
            }),
            Self::HostIp => text.parse::<std::net::IpAddr>().map(drop).map_err(|_| {
                let message = format!("`{text}` is no IP address");
                let help =
                    "Write an address of the host, such as `127.0.0.1`, or `0.0.0.0` for all.";
                ("spec.invalid_host_ip", message, help)
            }),
            Self::NodeName => text.parse::<NodeName>().map(drop).map_err(|error| {
                let help = "Write the name of a node, such as `control-plane-0`.";
                ("spec.invalid_name", error.to_string(), help)
            }),
        }
    }
}

/// The schema of the cluster file as [`super::schema`] writes it.
pub(super) fn root_schema() -> Value {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Cluster>();
    // Serializing brings the keywords into the order in which people read them.
    let Ok(Value::Object(schema)) = serde_json::to_value(schema) else {
        unreachable!("the schema of a struct is an object")
    };
    let mut root = Map::new();
    root.insert("$schema".to_owned(), Value::Null);
    root.insert("$id".to_owned(), SCHEMA_ID.into());
    root.extend(schema);
    root.insert("title".to_owned(), "bivouac cluster file".into());
    Value::Object(root)
}

/// The shape of the whole file.
pub(super) fn root_shape() -> Shape {
    let schema = root_schema();
    Reader { definitions: &schema["definitions"] }.shape(&schema)
}

struct Reader<'a> {
    definitions: &'a Value,
}

impl Reader<'_> {
    fn shape(&self, schema: &Value) -> Shape {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return named(name).unwrap_or_else(|| self.shape(&self.definitions[name]));
        }
        if let Some(parts) = schema["allOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            // `allOf` wraps one reference that has a description; `anyOf` is that or null.
            return self.shape(&parts[0]);
        }
        if let Some(cases) = schema["oneOf"].as_array() {
            return self.cases(cases);
        }
        match kind(schema) {
            "object" => self.object(schema),
            "boolean" => Shape::Boolean,
            "array" => Shape::List(Box::new(self.shape(&schema["items"]))),
            "integer" => Shape::Integer {
                min: schema["minimum"].as_u64().unwrap_or_default(),
                max: schema["maximum"].as_u64().unwrap_or(u32::MAX.into()),
            },
            other => {
                debug_assert_eq!(other, "string", "a form of schema that is not understood here");
                Shape::Text(Format::Any)
            }
        }
    }

    fn cases(&self, cases: &[Value]) -> Shape {
        let words: Option<Vec<_>> =
            cases.iter().map(|case| case["const"].as_str().map(str::to_owned)).collect();
        if let Some(words) = words {
            return Shape::Words(words);
        }
        let variants = cases.iter().filter_map(|case| case["properties"].as_object()).flatten();
        Shape::Choice(variants.map(|(name, schema)| (name.clone(), self.shape(schema))).collect())
    }

    fn object(&self, schema: &Value) -> Shape {
        if schema["additionalProperties"].is_object() {
            return Shape::Map(Box::new(self.shape(&schema["additionalProperties"])));
        }
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let fields =
            schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| {
                let required = required.iter().any(|field| field == name);
                (name.clone(), Field { shape: self.shape(schema), required })
            });
        Shape::Fields(fields.collect())
    }
}

fn kind(schema: &Value) -> &str {
    // `["string", "null"]`: null is the same as absent everywhere in the file.
    let kind = &schema["type"];
    kind.as_str().or_else(|| kind[0].as_str()).unwrap_or_default()
}

/// Types that check their own text.
fn named(name: &str) -> Option<Shape> {
    let format = match name {
        "ClusterName" => Format::ClusterName,
        "Bytes" => Format::Bytes,
        "Cpus" => Format::Cpus,
        "Span" => Format::Span,
        "Cidr" => Format::Cidr,
        "HostIp" => Format::HostIp,
        "NodeName" => Format::NodeName,
        _ => return None,
    };
    Some(Shape::Text(format))
}

impl Shape {
    /// The path of a field called `name` anywhere below, without going through lists.
    pub(super) fn find(&self, name: &str, path: &str) -> Option<String> {
        let below = |(key, shape): (&String, &Self)| {
            let path = super::path::field(path, key);
            if key == name { Some(path) } else { shape.find(name, &path) }
        };
        match self {
            Self::Fields(fields) => fields.iter().map(|(k, f)| (k, &f.shape)).find_map(below),
            Self::Choice(variants) => variants.iter().find_map(below),
            _ => None,
        }
    }

    /// Something that reads as this, in the place of a value that was refused.
    pub(super) fn placeholder(&self) -> Value {
        match self {
            Self::Fields(fields) => {
                let required = fields.iter().filter(|(_, field)| field.required);
                required.map(|(name, field)| (name.clone(), field.shape.placeholder())).collect()
            }
            Self::Choice(variants) => {
                let usual = variants.iter().next_back();
                usual.map(|(k, v)| (k.clone(), v.placeholder())).into_iter().collect()
            }
            Self::Map(_) => Value::Object(Map::new()),
            Self::List(_) => Value::Array(Vec::new()),
            Self::Words(words) => words[0].clone().into(),
            Self::Integer { min, .. } => (*min).max(1).into(),
            Self::Boolean => false.into(),
            Self::Text(format) => match format {
                Format::Any => "",
                Format::ClusterName => "default",
                Format::Bytes => "1GiB",
                Format::Cpus => "1",
                Format::Span => "1s",
                Format::Cidr => "0.0.0.0/0",
                Format::HostIp => "127.0.0.1",
                Format::NodeName => "node",
            }
            .into(),
        }
    }
}
