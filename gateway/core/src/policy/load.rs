//! Everything of a snapshot that is read and checked before anything is prepared from it.

use super::check::{Known, validate};
use super::layer::{self, Layer, LayerName, SourceFile, Standing, Stood};
use super::schema::{self, Builder, Footprint};
use super::shape;
use super::site::{self, SiteSchema};
use super::snapshot::Source;
use super::{Problem, Problems};
use crate::catalogue::hash_of;
use cedar_policy::Schema;
use std::collections::{BTreeMap, BTreeSet};

/// The charter's files, compiled in.
pub const CHARTER: [(&str, &str); 6] = [
    ("charter/acknowledge.cedar", include_str!("../../../../policies/charter/acknowledge.cedar")),
    ("charter/attended.cedar", include_str!("../../../../policies/charter/attended.cedar")),
    ("charter/changed.cedar", include_str!("../../../../policies/charter/changed.cedar")),
    ("charter/inbox.cedar", include_str!("../../../../policies/charter/inbox.cedar")),
    ("charter/reserved.cedar", include_str!("../../../../policies/charter/reserved.cedar")),
    ("charter/secrets.cedar", include_str!("../../../../policies/charter/secrets.cedar")),
];

/// The same as files.
pub fn charter() -> Vec<SourceFile> {
    CHARTER.iter().map(|(name, text)| SourceFile { name: (*name).into(), text: (*text).into() }).collect()
}

/// See the module.
pub struct Loaded {
    /// What nobody can relax.
    pub charter: Layer,
    /// The operators' policies.
    pub site: Layer,
    /// By name.
    pub compositions: BTreeMap<String, Layer>,
    /// What operators add to the schema.
    pub site_schema: SiteSchema,
    /// The generated schema.
    pub schema: Schema,
    /// The same with [`schema::with_optional_session`]; none without apps, and so without sessions.
    pub least_schema: Option<Schema>,
    /// The same in Cedar's text form.
    pub schema_text: String,
    /// `sha256:` and hex.
    pub schema_digest: String,
    /// The rules that stand as an operator has said, and how.
    pub standings: BTreeMap<String, Standing>,
}

impl Loaded {
    /// Under the compiled-in charter.
    pub fn new(source: &Source) -> Result<Self, Problems> {
        Self::with_charter(source, &charter())
    }

    /// Under another one: to try things out, never to serve.
    pub fn with_charter(source: &Source, charter: &[SourceFile]) -> Result<Self, Problems> {
        let general = |message: String| Problems(vec![Problem::general(message)]);
        let mut problems = Vec::new();
        let charter = kept(Layer::load(LayerName::Charter, charter), &mut problems);
        let base = schema::base().map_err(|e| general(e.to_string()))?;
        let apart = |file: &&SourceFile| !site::is_fragment(file) && !site::is_entities(file);
        let policies: Vec<SourceFile> = source.site.iter().filter(apart).cloned().collect();
        let site = kept(Layer::load(LayerName::Site, &policies), &mut problems);
        let site_schema = kept(site::read(&source.site, &base), &mut problems);
        let mut compositions = BTreeMap::new();
        for (name, files) in &source.compositions {
            if let Some(layer) = kept(Layer::composition(name, files), &mut problems) {
                compositions.insert(name.clone(), layer);
            }
        }
        let (Some(charter), Some(mut site), Some(site_schema), []) = (charter, site, site_schema, problems.as_slice())
        else {
            return Err(Problems(problems));
        };
        // What operators apply is all of it.
        site.digest = layer::digest(&source.site);
        let standings = stand(&mut site, &source.standings);
        let groups: Vec<String> = {
            let all: BTreeSet<&String> = source.workers.iter().flat_map(|w| &w.groups).collect();
            all.into_iter().cloned().collect()
        };
        shape::kinds_agree(&source.apps).map_err(general)?;
        let builder = Builder::new(&source.catalogue, &source.servers, &groups, &site_schema, &source.apps)
            .map_err(|e| general(e.to_string()))?;
        let known = Known { workers: &source.workers, groups: &groups, source };
        for layer in [&charter, &site].into_iter().chain(compositions.values()) {
            problems.extend(validate(layer, &builder, &known));
        }
        if !problems.is_empty() {
            // What is wrong with the schema is found again for each part of it.
            problems.dedup();
            return Err(Problems(problems));
        }
        let schema_json = builder.json(Footprint::All).map_err(|e| general(e.to_string()))?;
        let schema_digest = hash_of(&schema_json);
        let least_schema = match source.apps.is_empty() {
            true => None,
            false => Some(
                Schema::from_json_value(schema::with_optional_session(schema_json.clone()))
                    .map_err(|e| general(format!("the generated schema: {e}")))?,
            ),
        };
        let schema_text = cedar_policy::SchemaFragment::from_json_value(schema_json)
            .map_err(|e| e.to_string())
            .and_then(|fragment| fragment.to_cedarschema().map_err(|e| e.to_string()))
            .map_err(general)?;
        let schema = builder.schema(Footprint::All).map_err(|e| general(e.to_string()))?;
        Ok(Self {
            charter,
            site,
            compositions,
            site_schema,
            schema,
            least_schema,
            schema_text,
            schema_digest,
            standings,
        })
    }
}

/// What was read, or nothing and its problems among the others: an author mends all of it in one go.
fn kept<T>(read: Result<T, Problems>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|Problems(more)| problems.extend(more)).ok()
}

/// Gives the site's rules the standing that operators have said, and says which ones. What was said of a rule that was written
/// otherwise since is said of none.
fn stand(site: &mut Layer, said: &BTreeMap<String, Stood>) -> BTreeMap<String, Standing> {
    let mut standings = BTreeMap::new();
    for rule in &mut site.rules {
        let full: &str = rule.policy.id().as_ref();
        let id = full.strip_prefix(LayerName::Site.prefix()).unwrap_or(full);
        let Some(stood) = said.get(id) else { continue };
        if stood.of == rule.hash() && stood.standing != rule.standing {
            standings.insert(id.to_owned(), stood.standing);
            rule.standing = stood.standing;
        }
    }
    standings
}
