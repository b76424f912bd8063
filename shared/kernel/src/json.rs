//! JSON in which a struct is an object.
//!
//! serde's derived code also takes an array for a struct, by position. Nobody here sends one, it would make the order of fields part of what is agreed, and
//! the code for it is a third of all that reads JSON. [`from_str`] refuses it at every depth, and what is never called is left out of the binary.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use std::fmt::Formatter;

/// Reads a document.
///
/// # Errors
/// `serde_json`'s, and for an array in place of an object.
pub fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Objects(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Wraps a deserializer, and everything that it hands on.
pub struct Objects<T>(pub T);

struct Fields<V>(V);

macro_rules! forward {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(visitor)
        })*
    };
}

macro_rules! wrap {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Objects(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    forward! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    wrap! { deserialize_any deserialize_option deserialize_seq deserialize_map }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Objects(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Objects(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Objects(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Fields(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Objects(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(map))
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str,
        visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Objects(data))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(value, variant)| (value, Objects(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Objects(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Objects(visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: u8,
        b: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Plain,
        With(Inner),
        Fields { inner: Box<Inner> },
        Two(u8, Inner),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Newtype(Inner);

    #[derive(Debug, Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        borrowed: &'a str,
        list: Vec<Inner>,
        map: BTreeMap<String, Inner>,
        tuple: (i64, Inner),
        kinds: Vec<Kind>,
        newtype: Newtype,
        raw: Box<RawValue>,
        any: serde_json::Value,
        none: Option<Inner>,
        #[serde(default)]
        missing: Vec<f64>,
    }

    fn inner(a: u8) -> Inner {
        Inner { a, b: None }
    }

    #[test]
    fn all_that_serde_knows_is_read_as_it_would_be() {
        let text = r#"{ "borrowed": "x", "list": [{ "a": 1 }], "map": { "k": { "a": 2, "unknown": [{}] } }, "tuple": [-3, { "a": 3 }],
            "kinds": ["Plain", { "With": { "a": 4 } }, { "Fields": { "inner": { "a": 5 } } }, { "Two": [6, { "a": 6 }] }],
            "newtype": { "a": 7, "b": "\u00e9" }, "raw": [1, { "a":  [] }], "any": [{ "a": [1.5, null, true] }], "none": null }"#;
        let read: Outer<'_> = from_str(text).unwrap();
        assert_eq!((read.borrowed, &read.list[..], &read.tuple), ("x", &[inner(1)][..], &(-3, inner(3))));
        assert_eq!(read.map["k"], inner(2));
        assert_eq!(read.kinds, [Kind::Plain, Kind::With(inner(4)), Kind::Fields { inner: Box::new(inner(5)) }, Kind::Two(6, inner(6))]);
        assert_eq!(read.newtype, Newtype(Inner { a: 7, b: Some("é".to_owned()) }));
        assert_eq!(read.raw.get(), r#"[1, { "a":  [] }]"#);
        assert_eq!(read.any, serde_json::json!([{ "a": [1.5, null, true] }]));
        assert!(read.none.is_none() && read.missing.is_empty());
    }

    #[test]
    fn an_array_is_no_struct_at_any_depth() {
        assert_eq!(from_str::<Inner>(r#"{ "a": 1, "b": null }"#).unwrap(), inner(1));
        // serde_json alone takes all of these.
        assert!(serde_json::from_str::<Vec<Kind>>(r#"[{ "With": [1, null] }]"#).is_ok());
        assert!(from_str::<Inner>(r"[1, null]").is_err());
        assert!(from_str::<Vec<Inner>>(r"[[1, null]]").is_err());
        assert!(from_str::<Option<Inner>>(r"[1, null]").is_err());
        assert!(from_str::<BTreeMap<String, Inner>>(r#"{ "k": [1, null] }"#).is_err());
        assert!(from_str::<(u8, Inner)>(r"[1, [1, null]]").is_err());
        assert!(from_str::<Newtype>(r"[1, null]").is_err());
        assert!(from_str::<Kind>(r#"{ "With": [1, null] }"#).is_err());
        assert!(from_str::<Kind>(r#"{ "Two": [1, [1, null]] }"#).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_as_ever() {
        let message = |text| from_str::<Vec<Inner>>(text).unwrap_err().to_string();
        assert_eq!(message(r#"[{ "a": 256 }]"#), "invalid value: integer `256`, expected u8 at line 1 column 11");
        assert_eq!(message(r#"[{ "b": "" }]"#), "missing field `a` at line 1 column 12");
        assert_eq!(message(r#"[{ "a": 1, "a": 1 }]"#), "duplicate field `a` at line 1 column 14");
        assert_eq!(message("[] x"), "trailing characters at line 1 column 4");
        assert!(message("[[1]]").starts_with("invalid type: sequence, expected struct Inner"));
    }
}
