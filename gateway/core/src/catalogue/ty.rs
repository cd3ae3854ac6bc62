//! What policy can see of a tool's arguments: JSON Schema mapped to Cedar types.
//!
//! The mapping only ever loses detail in one direction: an argument is typed in `context.input`, or it is
//! [`Ty::Unseen`] and its pointer is named in `context.unseen`. Keywords that merely narrow (`pattern`, `minimum`,
//! `not`, `if`) are ignored. Source of the keywords: JSON Schema 2020-12.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Deeper than this a schema is not followed; the rest is unseen.
const DEPTH_MAX: usize = 8;

/// Sub-schemas that are looked at; branches of references to branches would multiply without end.
const VISITS_MAX: usize = 20_000;

/// The type of one argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Ty {
    /// `String`; with members when the schema closes the set of texts.
    Text(Option<BTreeSet<String>>),
    /// `Long`.
    Long,
    /// `decimal`.
    Decimal,
    /// `Bool`.
    Bool,
    /// `Set<T>`: order, duplicates and length are lost.
    Set(Box<Ty>),
    /// A record.
    Record(BTreeMap<String, Field>, Extra),
    /// A map with free keys: `Set<{key: String, value: T}>`.
    Map(Box<Ty>),
    /// One of several JSON kinds: a record of optional fields named by kind, of which exactly one is present.
    Kinds(BTreeMap<Kind, Ty>),
    /// Policy cannot see it.
    Unseen,
}

impl Ty {
    /// Whether a call can hold something that policy cannot see.
    pub fn can_hide(&self) -> bool {
        match self {
            Ty::Unseen => true,
            Ty::Text(_) | Ty::Long | Ty::Decimal | Ty::Bool => false,
            Ty::Set(item) | Ty::Map(item) => item.can_hide(),
            Ty::Record(fields, extra) => *extra == Extra::Unseen || fields.values().any(|field| field.ty.can_hide()),
            // Without a type, arrays and objects are named and not shown.
            Ty::Kinds(kinds) => kinds.values().any(Ty::can_hide) || kinds.len() == 3,
        }
    }
}

/// A member of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    pub ty: Ty,
    /// Whether a call without it is refused.
    pub required: bool,
    /// Whether `null` stands for absent.
    pub nullable: bool,
}

/// What a record does with a member its schema does not declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// The call is refused.
    Refuse,
    /// The pointer goes to `context.unseen`.
    Unseen,
}

/// The JSON kinds, in the names they have inside a union's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array.
    Array,
    /// An object with declared members.
    Object,
    /// An object with free keys.
    Map,
}

impl Kind {
    /// The field's name in a union's record.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Array => "array",
            Kind::Object => "object",
            Kind::Map => "map",
        }
    }
}

impl Ty {
    /// The type of the arguments object that an MCP `inputSchema` describes. Anything but an object is unseen.
    pub fn of_input_schema(schema: &Value) -> Ty {
        match (Reader { root: schema, refs: Vec::new(), visits: 0 }).schema(schema, 0).ty {
            record @ Ty::Record(..) => record,
            _ => Ty::Unseen,
        }
    }

    /// The Cedar type in Cedar's JSON schema form; nothing when policy cannot see it.
    pub fn to_cedar(&self) -> Option<Value> {
        Some(match self {
            Ty::Text(_) => json!({ "type": "String" }),
            Ty::Long => json!({ "type": "Long" }),
            Ty::Bool => json!({ "type": "Boolean" }),
            Ty::Decimal => json!({ "type": "Extension", "name": "decimal" }),
            Ty::Set(item) => json!({ "type": "Set", "element": item.to_cedar()? }),
            Ty::Map(item) => json!({ "type": "Set", "element": { "type": "Record", "attributes": {
                "key": { "type": "String" }, "value": item.to_cedar()? } } }),
            Ty::Kinds(kinds) => {
                let mut attributes = Map::new();
                for (kind, ty) in kinds {
                    attributes.insert(kind.name().into(), optional(ty.to_cedar()?, false));
                }
                json!({ "type": "Record", "attributes": attributes })
            }
            Ty::Record(fields, _) => {
                let seen = fields.iter().filter_map(|(name, field)| {
                    let ty = field.ty.to_cedar()?;
                    Some((name.clone(), optional(ty, field.required && !field.nullable)))
                });
                json!({ "type": "Record", "attributes": seen.collect::<Map<_, _>>() })
            }
            Ty::Unseen => return None,
        })
    }

    fn kind(&self) -> Option<Kind> {
        Some(match self {
            Ty::Text(_) => Kind::String,
            Ty::Long => Kind::Integer,
            Ty::Decimal => Kind::Number,
            Ty::Bool => Kind::Boolean,
            Ty::Set(_) => Kind::Array,
            Ty::Record(..) => Kind::Object,
            Ty::Map(_) => Kind::Map,
            Ty::Kinds(_) | Ty::Unseen => return None,
        })
    }

    /// A value may be of either type. Unseen absorbs: policy must not see half of an argument.
    fn or(self, other: Ty) -> Ty {
        match (self, other) {
            (Ty::Unseen, _) | (_, Ty::Unseen) => Ty::Unseen,
            (Ty::Text(Some(mut a)), Ty::Text(Some(b))) => {
                a.extend(b);
                Ty::Text(Some(a))
            }
            (Ty::Text(_), Ty::Text(_)) => Ty::Text(None),
            (Ty::Long, Ty::Long) => Ty::Long,
            (Ty::Bool, Ty::Bool) => Ty::Bool,
            (Ty::Decimal | Ty::Long, Ty::Decimal | Ty::Long) => Ty::Decimal,
            (Ty::Set(a), Ty::Set(b)) => wrap(a.or(*b), Ty::Set),
            (Ty::Map(a), Ty::Map(b)) => wrap(a.or(*b), Ty::Map),
            (Ty::Record(a, x), Ty::Record(b, y)) => {
                let extra = if x == y { x } else { Extra::Unseen };
                Ty::Record(merge(a, b, Field::or, |field| Field { required: false, ..field }), extra)
            }
            (a, b) => {
                let mut kinds = BTreeMap::new();
                a.into_kinds(&mut kinds);
                b.into_kinds(&mut kinds);
                let ambiguous = kinds.contains_key(&Kind::Object) && kinds.contains_key(&Kind::Map);
                if ambiguous || kinds.values().any(|ty| *ty == Ty::Unseen) { Ty::Unseen } else { Ty::Kinds(kinds) }
            }
        }
    }

    fn into_kinds(self, kinds: &mut BTreeMap<Kind, Ty>) {
        if let Ty::Kinds(own) = self {
            own.into_values().for_each(|ty| ty.into_kinds(kinds));
            return;
        }
        let Some(mut kind) = self.kind() else { return };
        let mut ty = self;
        // One field for numbers: an author would not know which of two to ask.
        if kind == Kind::Integer && kinds.contains_key(&Kind::Number) {
            kind = Kind::Number;
        }
        if kind == Kind::Number {
            kinds.remove(&Kind::Integer);
            ty = Ty::Decimal;
        }
        let ty = match kinds.remove(&kind) {
            Some(before) => before.or(ty),
            None => ty,
        };
        kinds.insert(kind, ty);
    }

    /// A value is of both types (`allOf`). Either bound alone is sound; the more precise one is kept.
    fn and(self, other: Ty) -> Ty {
        match (self, other) {
            (Ty::Record(a, x), Ty::Record(b, y)) => {
                let extra = if x == Extra::Unseen && y == Extra::Unseen { Extra::Unseen } else { Extra::Refuse };
                Ty::Record(merge(a, b, Field::and, |field| field), extra)
            }
            (Ty::Kinds(_) | Ty::Unseen, ty) | (ty, Ty::Kinds(_) | Ty::Unseen) => ty,
            (Ty::Text(Some(a)), Ty::Text(Some(b))) => Ty::Text(Some(a.intersection(&b).cloned().collect())),
            (Ty::Text(None), text @ Ty::Text(_)) | (text @ Ty::Text(_), Ty::Text(None)) => text,
            (Ty::Long, Ty::Decimal) | (Ty::Decimal, Ty::Long) => Ty::Long,
            (a, b) if a.kind() == b.kind() => a,
            _ => Ty::Unseen,
        }
    }
}

impl Field {
    fn or(self, other: Field) -> Field {
        Field {
            ty: self.ty.or(other.ty),
            required: self.required && other.required,
            nullable: self.nullable || other.nullable,
        }
    }

    fn and(self, other: Field) -> Field {
        Field {
            ty: self.ty.and(other.ty),
            required: self.required || other.required,
            nullable: self.nullable && other.nullable,
        }
    }
}

fn optional(mut ty: Value, required: bool) -> Value {
    ty["required"] = json!(required);
    ty
}

fn wrap(item: Ty, outer: fn(Box<Ty>) -> Ty) -> Ty {
    if item == Ty::Unseen { Ty::Unseen } else { outer(Box::new(item)) }
}

/// Fields of both sides go through `both`, the others through `alone`.
fn merge(
    a: BTreeMap<String, Field>,
    mut b: BTreeMap<String, Field>,
    both: fn(Field, Field) -> Field,
    alone: fn(Field) -> Field,
) -> BTreeMap<String, Field> {
    let mut merged = BTreeMap::new();
    for (name, field) in a {
        let field = match b.remove(&name) {
            Some(other) => both(field, other),
            None => alone(field),
        };
        merged.insert(name, field);
    }
    merged.extend(b.into_iter().map(|(name, field)| (name, alone(field))));
    merged
}

/// A type, and whether `null` is a value of it.
struct Typed {
    ty: Ty,
    nullable: bool,
}

impl Typed {
    const UNSEEN: Typed = Typed { ty: Ty::Unseen, nullable: true };

    fn new(ty: Ty, nullable: bool) -> Self {
        Self { ty, nullable }
    }

    /// A scalar of any kind: what a schema without a type lets policy see. Arrays and objects are named in `unseen`.
    fn any() -> Self {
        let kinds = [(Kind::String, Ty::Text(None)), (Kind::Number, Ty::Decimal), (Kind::Boolean, Ty::Bool)];
        Self::new(Ty::Kinds(kinds.into()), true)
    }
}

struct Reader<'s> {
    root: &'s Value,
    /// References being followed: meeting one again means a recursive type.
    refs: Vec<String>,
    visits: usize,
}

const SHAPE: [&str; 8] = ["type", "properties", "required", "anyOf", "oneOf", "enum", "const", "additionalProperties"];

impl Reader<'_> {
    fn schema(&mut self, schema: &Value, depth: usize) -> Typed {
        self.visits += 1;
        let members = match schema {
            Value::Bool(true) => return Typed::any(),
            Value::Object(members) if depth <= DEPTH_MAX && self.visits <= VISITS_MAX => members,
            _ => return Typed::UNSEEN,
        };
        if let Some(reference) = members.get("$ref").or(members.get("$dynamicRef")) {
            return self.reference(reference, depth);
        }
        if let Some(Value::Array(parts)) = members.get("allOf") {
            return self.all_of(members, parts, depth);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Value::Array(parts)) = members.get(keyword) {
                return self.any_of(members, parts, depth);
            }
        }
        if let Some(values) = members.get("enum").and_then(Value::as_array) {
            return constants(values);
        }
        if let Some(value) = members.get("const") {
            return constants(std::slice::from_ref(value));
        }
        match members.get("type") {
            Some(Value::Array(types)) => {
                let nullable = types.iter().any(|t| t == "null");
                let one = types.iter().filter(|t| *t != "null").filter_map(Value::as_str);
                let ty = one.map(|t| self.typed(t, members, depth)).reduce(Ty::or);
                Typed::new(ty.unwrap_or(Ty::Unseen), nullable)
            }
            Some(Value::String(t)) => Typed::new(self.typed(t, members, depth), t == "null"),
            _ if members.contains_key("properties") => Typed::new(self.object(members, depth), false),
            _ if members.contains_key("items") => Typed::new(self.array(members, depth), false),
            _ => Typed::any(),
        }
    }

    fn typed(&mut self, name: &str, members: &Map<String, Value>, depth: usize) -> Ty {
        match name {
            "string" => Ty::Text(None),
            "integer" => Ty::Long,
            "boolean" => Ty::Bool,
            "number" if members.get("multipleOf").is_some_and(Value::is_i64) => Ty::Long,
            "number" => Ty::Decimal,
            "array" => self.array(members, depth),
            "object" => self.object(members, depth),
            _ => Ty::Unseen,
        }
    }

    /// A local reference is inlined; a remote or recursive one is never followed.
    fn reference(&mut self, reference: &Value, depth: usize) -> Typed {
        let Some(name) = reference.as_str() else { return Typed::UNSEEN };
        if self.refs.iter().any(|open| open == name) {
            return Typed::UNSEEN;
        }
        let Some(target) = name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else {
            return Typed::UNSEEN;
        };
        self.refs.push(name.to_owned());
        let typed = self.schema(target, depth + 1);
        self.refs.pop();
        typed
    }

    fn all_of(&mut self, members: &Map<String, Value>, parts: &[Value], depth: usize) -> Typed {
        let mut own = members.clone();
        own.remove("allOf");
        let shaped = own.keys().any(|keyword| SHAPE.contains(&keyword.as_str()));
        let own = shaped.then(|| self.schema(&Value::Object(own), depth));
        let parts: Vec<Typed> = parts.iter().map(|part| self.schema(part, depth + 1)).collect();
        own.into_iter()
            .chain(parts)
            .reduce(|a, b| Typed::new(a.ty.and(b.ty), a.nullable && b.nullable))
            .unwrap_or_else(Typed::any)
    }

    fn any_of(&mut self, members: &Map<String, Value>, parts: &[Value], depth: usize) -> Typed {
        // What stands beside `anyOf` applies to each branch.
        let mut beside = members.clone();
        beside.retain(|keyword, _| ["type", "properties", "required"].contains(&keyword.as_str()));
        let mut nullable = false;
        let mut ty: Option<Ty> = None;
        for part in parts {
            if part.get("type").is_some_and(|t| t == "null") {
                nullable = true;
                continue;
            }
            let branch = if beside.is_empty() { part.clone() } else { json!({ "allOf": [beside.clone(), part] }) };
            let typed = self.schema(&branch, depth + 1);
            nullable |= typed.nullable;
            ty = Some(match ty {
                Some(ty) => ty.or(typed.ty),
                None => typed.ty,
            });
        }
        Typed::new(ty.unwrap_or(Ty::Unseen), nullable)
    }

    fn array(&mut self, members: &Map<String, Value>, depth: usize) -> Ty {
        let tuple = members.get("prefixItems").and_then(Value::as_array).into_iter().flatten();
        let items = match members.get("items") {
            Some(Value::Array(old_tuple)) => old_tuple.iter().collect(),
            Some(item) => vec![item],
            None => vec![],
        };
        let mut ty: Option<Ty> = None;
        for item in tuple.chain(items) {
            let item = self.schema(item, depth + 1);
            if item.nullable || item.ty == Ty::Unseen {
                return Ty::Unseen;
            }
            ty = Some(match ty {
                Some(ty) => ty.or(item.ty),
                None => item.ty,
            });
        }
        ty.map_or(Ty::Unseen, |item| wrap(item, Ty::Set))
    }

    fn object(&mut self, members: &Map<String, Value>, depth: usize) -> Ty {
        let further = members.get("additionalProperties").or(members.get("unevaluatedProperties"));
        let patterns = members.contains_key("patternProperties");
        let properties = members.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty());
        let Some(properties) = properties else {
            return match further {
                Some(Value::Bool(false)) => Ty::Record(BTreeMap::new(), Extra::Refuse),
                Some(value @ Value::Object(keywords)) if !keywords.is_empty() && !patterns => {
                    match self.schema(value, depth + 1) {
                        Typed { ty, nullable: false } if depth > 0 => wrap(ty, Ty::Map),
                        _ if depth == 0 => Ty::Record(BTreeMap::new(), Extra::Unseen),
                        _ => Ty::Unseen,
                    }
                }
                // The arguments of a tool that declares none; anything else with no members is a free form.
                None if depth == 0 && !patterns => Ty::Record(BTreeMap::new(), Extra::Refuse),
                _ if depth == 0 => Ty::Record(BTreeMap::new(), Extra::Unseen),
                _ => Ty::Unseen,
            };
        };
        let required: BTreeSet<&str> =
            members.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let open = matches!(further, Some(Value::Bool(true) | Value::Object(_))) || patterns;
        let fields = properties.iter().map(|(name, schema)| {
            let Typed { ty, nullable } = self.schema(schema, depth + 1);
            (name.clone(), Field { ty, required: required.contains(name.as_str()), nullable })
        });
        Ty::Record(fields.collect(), if open { Extra::Unseen } else { Extra::Refuse })
    }
}

fn constants(values: &[Value]) -> Typed {
    let nullable = values.iter().any(Value::is_null);
    let types = values.iter().filter(|value| !value.is_null()).map(|value| match value {
        Value::String(text) => Ty::Text(Some(BTreeSet::from([text.clone()]))),
        Value::Bool(_) => Ty::Bool,
        Value::Number(n) if n.is_i64() => Ty::Long,
        Value::Number(_) => Ty::Decimal,
        _ => Ty::Unseen,
    });
    Typed::new(types.reduce(Ty::or).unwrap_or(Ty::Unseen), nullable)
}
