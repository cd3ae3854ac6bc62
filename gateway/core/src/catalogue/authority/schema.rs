//! The marked fields that a JSON Schema declares.

use super::{
    ADDRESS_FORMATS, Class, Field, Members, PLACE_FORMATS, Shape, TIME_FORMATS, carries_authority, class_of_name,
    listed, tells_of_address,
};
use crate::catalogue::Effect;
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Schemas within schemas that are followed. What lies deeper counts as undeclared, so schemas that contain
/// themselves end too.
const DEPTH_MAX: usize = 24;
/// What one object within another takes of it: a list, a reference and the object.
const NESTING: usize = 3;
/// Schemas that are looked at for one argument; the rest counts as undeclared. Bounds schemas that refer to
/// themselves several times.
const STEPS_MAX: usize = 4000;

/// What a value can be, without lists around it and without null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One of the values that the schema lists: the server's own words.
    Listed,
    Boolean,
    Number,
    Integer,
    String,
    Object,
    Any,
}

/// One thing that a field can hold.
struct Leaf<'s> {
    kind: Kind,
    format: Option<&'s str>,
}

/// The properties of an object, each with all schemas that are given for it.
#[derive(Default)]
struct Properties<'s> {
    of: BTreeMap<&'s str, Vec<&'s Value>>,
    /// Whether the object is an item of a list.
    list: bool,
}

pub(super) struct Reader<'s> {
    root: &'s Value,
    effect: Effect,
    steps: Cell<usize>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(root: &'s Value, effect: Effect) -> Self {
        Self { root, effect, steps: Cell::new(STEPS_MAX) }
    }

    /// The arguments. `description` is the tool's.
    pub(super) fn top(&self, description: Option<&str>) -> Members {
        let properties = self.properties(&[self.root], 0);
        let field = |(name, schemas): (&&str, &Vec<&'s Value>)| {
            self.steps.set(STEPS_MAX);
            ((*name).to_owned(), self.field(name, schemas, said_of(description, name), 0))
        };
        properties.of.iter().map(field).collect()
    }

    fn field(&self, name: &str, schemas: &[&'s Value], said: Option<&str>, depth: usize) -> Field {
        let classes: Vec<_> = schemas.iter().map(|schema| self.judge(name, schema, said, depth)).collect();
        if classes.iter().any(|(_, marked)| *marked) {
            return Field::Marked(self.shape(schemas, depth));
        }
        if classes.iter().all(|(class, _)| *class == Class::Content) {
            return Field::Content;
        }
        let Properties { of, list } = self.properties(schemas, depth);
        let members =
            of.iter().map(|(name, schemas)| ((*name).to_owned(), self.field(name, schemas, None, depth + NESTING)));
        Field::Inside { list, members: members.collect() }
    }

    /// What a field is, and whether it is marked.
    fn judge(&self, name: &str, schema: &'s Value, said: Option<&str>, depth: usize) -> (Class, bool) {
        let mut leaves = Vec::new();
        self.leaves(schema, None, depth, &mut leaves);
        let class = class(name, schema, said, &leaves);
        let only = |kinds: &[Kind]| !leaves.is_empty() && leaves.iter().all(|leaf| kinds.contains(&leaf.kind));
        let names_something = leaves.iter().any(|l| matches!(l.kind, Kind::String | Kind::Integer | Kind::Any));
        // Values that the server lists are as harmless as the tool, and fractions name nobody.
        let exempt = only(&[Kind::Listed, Kind::Boolean]) || only(&[Kind::Number, Kind::Boolean]);
        (class, !exempt && carries_authority(class, self.effect, names_something))
    }

    fn shape(&self, schemas: &[&'s Value], depth: usize) -> Shape {
        let properties = self.properties(schemas, depth);
        let inner =
            |(name, schemas): (&&str, &Vec<&'s Value>)| ((*name).to_owned(), self.shape(schemas, depth + NESTING));
        Shape(properties.of.iter().map(inner).collect())
    }

    /// What values of `schema` consist of: through references, alternatives and lists. `format` is what the schema
    /// around it says.
    fn leaves(&self, schema: &'s Value, format: Option<&'s str>, depth: usize, into: &mut Vec<Leaf<'s>>) {
        let format = schema.get("format").and_then(Value::as_str).or(format);
        let mut push = |kind| into.push(Leaf { kind, format });
        if !self.step(depth) {
            return push(Kind::Any);
        }
        if schema.get("enum").is_some() || schema.get("const").is_some() {
            return push(Kind::Listed);
        }
        let mut others = self.alternatives(schema).peekable();
        if others.peek().is_some() {
            return others.for_each(|other| self.leaves(other, format, depth + 1, into));
        }
        let types = match schema.get("type") {
            Some(Value::Array(types)) => types.iter().collect(),
            Some(one) => vec![one],
            None => return push(Kind::Any),
        };
        for ty in types {
            match ty.as_str() {
                Some("null") => {}
                Some("array") => {
                    let mut items = items(schema).peekable();
                    if items.peek().is_none() {
                        into.push(Leaf { kind: Kind::Any, format });
                    }
                    items.for_each(|item| self.leaves(item, format, depth + 1, into));
                }
                Some("boolean") => into.push(Leaf { kind: Kind::Boolean, format }),
                Some("number") => into.push(Leaf { kind: Kind::Number, format }),
                Some("integer") => into.push(Leaf { kind: Kind::Integer, format }),
                Some("string") => into.push(Leaf { kind: Kind::String, format }),
                Some("object") => into.push(Leaf { kind: Kind::Object, format }),
                _ => into.push(Leaf { kind: Kind::Any, format }),
            }
        }
    }

    fn properties(&self, schemas: &[&'s Value], depth: usize) -> Properties<'s> {
        let mut found = Properties::default();
        schemas.iter().for_each(|schema| self.collect(schema, depth, &mut found));
        found
    }

    fn collect(&self, schema: &'s Value, depth: usize, found: &mut Properties<'s>) {
        if !self.step(depth) {
            return;
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            found.of.entry(name).or_default().push(property);
        }
        self.alternatives(schema).for_each(|other| self.collect(other, depth + 1, found));
        for item in items(schema) {
            found.list = true;
            self.collect(item, depth + 1, found);
        }
    }

    /// The schemas that `schema` stands for or combines. A reference to nothing stands for anything.
    fn alternatives(&self, schema: &'s Value) -> impl Iterator<Item = &'s Value> + use<'s> {
        let referred = schema.get("$ref").map(|to| {
            let pointer = to.as_str().and_then(|to| to.strip_prefix('#'));
            pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(&Value::Null)
        });
        let combined = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
        referred.into_iter().chain(combined)
    }

    fn step(&self, depth: usize) -> bool {
        let left = self.steps.get();
        self.steps.set(left.saturating_sub(1));
        left > 0 && depth < DEPTH_MAX
    }
}

/// The schemas of a list's items.
fn items(schema: &Value) -> impl Iterator<Item = &Value> {
    ["items", "prefixItems"].into_iter().filter_map(|key| schema.get(key)).flat_map(|items| match items {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    })
}

/// What a field is: by its format, else by its name, else by what is said of it.
fn class(name: &str, schema: &Value, said: Option<&str>, leaves: &[Leaf]) -> Class {
    let of = |formats, leaf: &Leaf| leaf.format.is_some_and(|format| listed(formats, format));
    if leaves.iter().any(|leaf| of(PLACE_FORMATS, leaf)) {
        return Class::Place;
    }
    if leaves.iter().any(|leaf| of(ADDRESS_FORMATS, leaf)) {
        return Class::Address;
    }
    // A time clears the field, so nothing else may fit in it.
    if !leaves.is_empty() && leaves.iter().all(|leaf| of(TIME_FORMATS, leaf)) {
        return Class::Time;
    }
    class_of_name(name).unwrap_or_else(|| {
        let description = schema.get("description").and_then(Value::as_str).or(said);
        if description.is_some_and(tells_of_address) { Class::Address } else { Class::Other }
    })
}

/// What a tool's description says of one argument. Servers made from functions put it there, one line each:
/// `dst: the IBAN`, `- dst (str): the IBAN`, `:param dst: the IBAN`.
fn said_of<'t>(description: Option<&'t str>, name: &str) -> Option<&'t str> {
    description?.lines().find_map(|line| {
        let line = line.trim_start_matches([' ', '\t', '-', '*', '`']);
        let rest = line.strip_prefix(":param ").unwrap_or(line).strip_prefix(name)?;
        let (between, said) = rest.split_once(':')?;
        let between = between.trim_matches(['`', '*', ' ']);
        (between.is_empty() || between.starts_with('(')).then_some(said)
    })
}
