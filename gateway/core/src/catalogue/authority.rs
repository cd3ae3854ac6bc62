//! Which inputs of a tool carry authority: who receives, who is admitted, where a call reaches, what is destroyed.
//!
//! A text that a tool returned may ask for anything, and a model may do it with a tool that its task needs anyway. What
//! such a call must bring in from outside is then seldom the text it writes and nearly always one of these values, so
//! they are asked where they come from (see the scope of a task) and the rest is not.
//!
//! They are told from names, formats and types, by the lists below. This is a heuristic: it holds what is usual, and
//! an operator replaces it for a tool that is unusual ([`Marks::of_names`]). The server writes the definition, so the
//! marks are no protection from the server itself. That arguments have the declared type, and one of the declared
//! texts where these are listed, is checked elsewhere ([`crate::catalogue`]).

mod schema;

use super::Effect;
use crate::json::{Json, push_pointer};
use schema::Reader;
use serde_json::Value;
use std::collections::BTreeMap;

/// First words of names of tools that only look. Looking moves nothing, so there only the place it reaches to counts.
const READ: &str = "get list search find read check query lookup view show describe count fetch retrieve browse \
    summarize compare verify";

/// Words for what cannot be taken back: something is gone, paid, sent, committed to or public. There every text that
/// is nothing else (content, a time, a quantity) says what it is done to.
const IRREVERSIBLE: &str = "delete remove cancel drop destroy erase purge wipe revoke terminate kill uninstall \
    send pay transfer wire buy purchase order book reserve publish post submit sign deploy release";

/// Words for other changes. A tool whose name has one is no reading tool, even if the name begins like one
/// (`get_or_create_user`).
const WRITE: &str = "add append create make new insert write update edit modify change set put patch upload save \
    store move copy rename replace merge share invite grant assign schedule reschedule reply forward start stop run \
    execute enable disable reset approve reject accept register subscribe unsubscribe import export";

/// Who receives something, who is admitted, on whose behalf or in whose place it lands. Also with a naming word
/// behind it: `user_id`, `channel_name`.
const PARTY: &str = "recipient receiver payee beneficiary creditor to cc bcc participant attendee invitee guest \
    member user assignee collaborator reviewer subscriber contact person people client owner group team \
    channel room chat conversation mailbox inbox account wallet company organization organisation org vendor merchant \
    supplier seller provider tenant workspace project repo repository bucket remote registry topic queue destination \
    dest target";

/// What is an address by itself. Only as the last word: `email`, and not `email_id`, which is a message.
const ADDRESS: &str = "email mail emailaddress address iban bic swift phone mobile fax handle username userid login";

/// Where the call itself reaches. On reading tools too: a request carries data out in its address, and a path reads
/// what it should not.
const PLACE: &str = "url uri link href endpoint webhook callback host hostname domain ip server proxy website path \
    dir directory filepath";

/// Who gains access, and by what.
const GRANT: &str = "password passwd passphrase passcode pin secret credential role permission privilege";

/// Words behind a party that only say how it is named.
const NAMING: &str = "id name number no num nr key uuid address";

/// First words of quantities: `max_recipients` is no recipient.
const COUNTING: &str = "n num number count max min limit total amount size";

/// Last words of quantities. Not `number`, which ends `account_number`.
const QUANTITY: &str = "count limit total amount size";

/// What is written or asked for. Models compose it from all they have read, so it is hardly ever a copy of what a
/// person wrote, and asking for that would stop honest work.
const CONTENT: &str = "body content text message description subject title summary note comment caption reason query \
    prompt question answer label tag html markdown data payload attachment image media";

/// When. Computed from other times as a rule, and harmless without a party.
const TIME: &str = "date time day month year week hour minute start end when deadline duration timezone until since \
    before after";

/// Formats of JSON Schema that name a place.
const PLACE_FORMATS: &str = "uri url iri uri-reference hostname idn-hostname ipv4 ipv6";
/// Formats that name an address.
const ADDRESS_FORMATS: &str = "email idn-email";
/// Formats that name a time.
const TIME_FORMATS: &str = "date time date-time duration";

/// What the first sentence about a field says of an address whose name does not tell, as in `dst: the IBAN to credit`.
const PHRASES: [&[&str]; 6] = [
    &["email", "address"],
    &["e", "mail", "address"],
    &["phone", "number"],
    &["account", "number"],
    &["iban"],
    &["recipient"],
];

/// What a field is, as far as its definition tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Where the call reaches.
    Place,
    /// An address of someone.
    Address,
    /// Who gains access, or by what.
    Grant,
    /// Somebody, or what belongs to somebody.
    Party,
    /// A quantity.
    Count,
    /// Text that is written or asked for.
    Content,
    /// When.
    Time,
    /// Nothing of these.
    Other,
}

/// The marked fields of one tool, prepared once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    members: Members,
    /// The effect by which members that the schema does not declare are judged, from their names alone. None when an
    /// operator has named the fields.
    undeclared: Option<Effect>,
}

type Members = BTreeMap<String, Field>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// Every value of it carries authority.
    Marked(Shape),
    /// It carries none itself, but members of it may.
    Inside { list: bool, members: Members },
    /// Never looked into.
    Content,
}

/// The members that a marked object may have. In any other object a name could be the value, as in
/// `{"eve@example.org": true}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape(BTreeMap<String, Shape>);

/// The marked fields of the tool `name` with the input schema `schema`. `effect` is what an operator has said; without
/// it the tool's name suggests one. `description` is the tool's own: a line of it such as `dst: the IBAN to credit`
/// speaks for an argument that has no description in the schema.
pub fn marks(name: &str, schema: &Value, description: Option<&str>, effect: Option<Effect>) -> Marks {
    let effect = effect.unwrap_or_else(|| suggested(name));
    Marks { members: Reader::new(schema, effect).top(description), undeclared: Some(effect) }
}

impl Marks {
    /// Exactly these top-level arguments, as an operator says, and nothing else. Lists are marked item by item; an
    /// object as a value of one is never vouched for, since nothing says what its members mean.
    pub fn of_names(names: &[String]) -> Self {
        let marked = |name: &String| (name.clone(), Field::Marked(Shape::default()));
        Self { members: names.iter().map(marked).collect(), undeclared: None }
    }

    /// JSON pointers of the marked fields that the schema declares, sorted, with `*` for any item of a list:
    /// `/recipients`, `/guests/*/email`.
    pub fn names(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect_names(&self.members, &mut String::new(), &mut found);
        found.sort_unstable();
        found
    }

    /// The values in `arguments` that carry authority, by field, sorted by name: the field's JSON pointer without its
    /// first slash and without positions in lists, such as `recipients` or `guests/email`.
    ///
    /// Null, booleans, blank strings and empty lists and objects carry none, and a field that has nothing else is left
    /// out. Values are strings and numbers; an object among them stands where the schema expects none, or has members
    /// that it does not declare. Arguments that are no object are one value under the empty name.
    pub fn values<'j>(&self, arguments: &'j Json) -> Vec<(String, Vec<&'j Json>)> {
        let mut found = BTreeMap::new();
        match arguments {
            Json::Null => {}
            Json::Object(object) => self.collect(&self.members, object, &mut String::new(), &mut found),
            other => _ = found.insert(String::new(), vec![other]),
        }
        found.into_iter().collect()
    }

    fn collect<'j>(
        &self,
        members: &Members,
        object: &'j [(String, Json)],
        at: &mut String,
        found: &mut BTreeMap<String, Vec<&'j Json>>,
    ) {
        let end = at.len();
        for (name, value) in object {
            push_pointer(at, name);
            let by_name;
            let field = match (members.get(name), self.undeclared) {
                (Some(field), _) => Some(field),
                (None, Some(effect)) => {
                    by_name = undeclared(name, effect);
                    Some(&by_name)
                }
                (None, None) => None,
            };
            match field {
                Some(Field::Marked(shape)) => collect_leaves(shape, value, at, found),
                Some(Field::Inside { members, .. }) => self.collect_inside(members, value, at, found),
                Some(Field::Content) | None => {}
            }
            at.truncate(end);
        }
    }

    fn collect_inside<'j>(
        &self,
        members: &Members,
        value: &'j Json,
        at: &mut String,
        found: &mut BTreeMap<String, Vec<&'j Json>>,
    ) {
        match value {
            Json::Object(object) => self.collect(members, object, at, found),
            Json::Array(items) => items.iter().for_each(|item| self.collect_inside(members, item, at, found)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}

fn collect_leaves<'j>(shape: &Shape, value: &'j Json, at: &str, found: &mut BTreeMap<String, Vec<&'j Json>>) {
    match value {
        Json::Null | Json::Bool(_) => {}
        Json::String(text) if text.trim().is_empty() => {}
        Json::Array(items) => items.iter().for_each(|item| collect_leaves(shape, item, at, found)),
        Json::Object(members) if members.iter().all(|(name, _)| shape.0.contains_key(name)) => {
            for (name, value) in members {
                if let Some(shape) = shape.0.get(name) {
                    collect_leaves(shape, value, at, found);
                }
            }
        }
        Json::Number(_) | Json::String(_) | Json::Object(_) => {
            found.entry(at.strip_prefix('/').unwrap_or(at).to_owned()).or_default().push(value);
        }
    }
}

fn collect_names(members: &Members, at: &mut String, found: &mut Vec<String>) {
    let end = at.len();
    for (name, field) in members {
        push_pointer(at, name);
        match field {
            Field::Marked(_) => found.push(at.clone()),
            Field::Inside { list, members } => {
                at.push_str(if *list { "/*" } else { "" });
                collect_names(members, at, found);
            }
            Field::Content => {}
        }
        at.truncate(end);
    }
}

/// The effect that a tool's name suggests. Marks go by it until an operator has said one; nothing else does.
pub fn suggested(name: &str) -> Effect {
    let words = words(name);
    let any = |list| words.iter().any(|word| listed(list, word));
    if any(IRREVERSIBLE) {
        Effect::Irreversible
    } else if words.first().is_some_and(|word| listed(READ, word)) && !any(WRITE) {
        Effect::Read
    } else {
        Effect::Write
    }
}

/// A member that no schema declares, by its name alone: it may be of any type.
fn undeclared(name: &str, effect: Effect) -> Field {
    match class_of_name(name).unwrap_or(Class::Other) {
        class if carries_authority(class, effect, true) => Field::Marked(Shape::default()),
        Class::Content => Field::Content,
        _ => Field::Inside { list: false, members: Members::new() },
    }
}

/// `names_something` says whether the field can hold a text or a whole number, which may name what the call acts on.
fn carries_authority(class: Class, effect: Effect, names_something: bool) -> bool {
    match (class, effect) {
        (Class::Place, _) => true,
        (_, Effect::Read) => false,
        (Class::Party | Class::Address | Class::Grant, _) => true,
        (Class::Other, Effect::Irreversible | Effect::Production) => names_something,
        (Class::Other | Class::Count | Class::Content | Class::Time, _) => false,
    }
}

/// What a name says, if anything: the first list that fits, in this order.
fn class_of_name(name: &str) -> Option<Class> {
    let words = words(name);
    let (first, last) = (words.first()?, words.last()?);
    // What is named: `user` in `user_id`.
    let named = words.iter().rposition(|word| !has(NAMING, word)).unwrap_or(0);
    let core = words.get(named)?;
    // `to` is somebody, `translate_to` is a language.
    let party = has(PARTY, core) && (core != "to" || named == 0);
    [
        (has(PLACE, last), Class::Place),
        (has(ADDRESS, last), Class::Address),
        (has(COUNTING, first) || listed(QUANTITY, last), Class::Count),
        (has(GRANT, core), Class::Grant),
        (party, Class::Party),
        (has(CONTENT, last), Class::Content),
        (has(TIME, last), Class::Time),
    ]
    .into_iter()
    .find_map(|(fits, class)| fits.then_some(class))
}

/// Whether the first sentence about a field speaks of somebody's address.
fn tells_of_address(description: &str) -> bool {
    let sentence = description.to_lowercase();
    let sentence = sentence.split(['.', '\n']).next().unwrap_or_default();
    let words = sentence.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    PHRASES.iter().any(|phrase| {
        let Some((last, before)) = phrase.split_last() else { return false };
        words
            .windows(phrase.len())
            .any(|run| run.split_last().is_some_and(|(end, start)| start == before && has(last, end)))
    })
}

/// The words of a snake, kebab, dotted or camel name, in lower case: `fileURLPath` is `file`, `url`, `path`.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (index, &c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| chars.get(index));
        let after = chars.get(index + 1);
        let begins = c.is_uppercase()
            && (before.is_some_and(|c| c.is_lowercase() || c.is_numeric()) || after.is_some_and(|c| c.is_lowercase()));
        if begins || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whether `list` holds `word` as it is.
fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|one| one == word)
}

/// Whether `list` holds `word` or what it is the plural of.
fn has(list: &str, word: &str) -> bool {
    let cut = |end| word.strip_suffix(end).is_some_and(|one| listed(list, one));
    listed(list, word)
        || cut("s")
        || cut("es")
        || word.strip_suffix("ies").is_some_and(|one| listed(list, &format!("{one}y")))
}

#[cfg(test)]
mod tests;
