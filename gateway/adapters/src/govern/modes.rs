//! Which rules decide and which stand in shadow, as operators say.

use super::{Error, Governor};
use cedar_policy::Effect;
use std::collections::BTreeMap;
use warden_core::journal::record::{PolicyChange, PolicyEvent};
use warden_core::policy::layer::{Layer, LayerName, SourceFile, Standing, Stood};
use warden_core::policy::nearest;
use warden_core::policy::snapshot::Snapshot;

impl Governor {
    /// Lets a rule of the site decide, or takes it out into shadow, after its replay was shown: `shown` is the digest of the policies
    /// that were replayed.
    pub async fn moded(&self, operator: &str, id: &str, standing: Standing, shown: &str) -> Result<String, Error> {
        let mut state = self.state.lock().await;
        let id = id.strip_prefix("site/").unwrap_or(id);
        let mut next = state.clone();
        next.standings =
            standings_with(&self.gate.snapshot(), &state.standings, id, standing).map_err(Error::Refused)?;
        let snapshot = self.build(&next).await?;
        let now = snapshot.digests.policy.clone();
        if now != shown {
            return Err(Error::Refused(format!(
                "with that the policies would be `{now}`, and what was replayed is `{shown}`: replay again with `warden policy {} {id}`",
                if standing == Standing::Live { "promote" } else { "demote" }
            )));
        }
        let act = if standing == Standing::Live { "policy_promote" } else { "policy_demote" };
        self.act(operator, act, &format!("site/{id} {now}")).await?;
        let change = PolicyChange {
            operator: Some(operator.to_owned()),
            modes: [(format!("site/{id}"), standing)].into(),
            ..self.says(PolicyEvent::Moded, &snapshot)
        };
        self.put(&mut state, next, snapshot, change).await?;
        Ok(now)
    }
}

/// What is said of standings when one more is said. The error says why that cannot be.
pub fn standings_with(
    snapshot: &Snapshot,
    standings: &BTreeMap<String, Stood>,
    id: &str,
    standing: Standing,
) -> Result<BTreeMap<String, Stood>, String> {
    let site = snapshot.layers.iter().filter(|layer| layer.name == LayerName::Site).flat_map(|layer| &layer.rules);
    let full = format!("{}{id}", LayerName::Site.prefix());
    let ids: Vec<String> = site.clone().map(|rule| rule.policy.id().to_string()).collect();
    let Some(rule) = site.into_iter().find(|rule| AsRef::<str>::as_ref(rule.policy.id()) == full) else {
        if id.starts_with(LayerName::Charter.prefix()) {
            return Err(format!("`{id}` is the charter's: its rules have no mode"));
        }
        let bare = ids.iter().map(|id| id.strip_prefix(LayerName::Site.prefix()).unwrap_or(id));
        let near = nearest(id, bare).map(|near| format!(": did you mean `site/{near}`?"));
        return Err(format!("no rule of the site that decides is `{full}`{}", near.unwrap_or_default()));
    };
    if rule.standing == standing {
        return Err(format!("`{full}` is {} already", standing.name()));
    }
    let mut all = standings.clone();
    all.insert(id.to_owned(), Stood { standing, of: rule.hash() });
    Ok(all)
}

/// What is said of standings once other files decide, and what that changes. A forbid that says something else now decides again; a
/// permit that was taken into shadow stays there, whatever it says.
pub(super) fn standings_after(
    site: &[SourceFile],
    standings: &BTreeMap<String, Stood>,
) -> (BTreeMap<String, Stood>, BTreeMap<String, Standing>) {
    let policies: Vec<SourceFile> = site.iter().filter(|file| file.name.ends_with(".cedar")).cloned().collect();
    // What does not load is not applied.
    let rules = Layer::load(LayerName::Site, &policies).map(|layer| layer.rules).unwrap_or_default();
    let (mut kept, mut changed) = (BTreeMap::new(), BTreeMap::new());
    for (id, stood) in standings {
        let full = format!("{}{id}", LayerName::Site.prefix());
        let rule = rules.iter().find(|rule| AsRef::<str>::as_ref(rule.policy.id()) == full);
        match rule {
            Some(rule) if rule.hash() == stood.of => drop(kept.insert(id.clone(), stood.clone())),
            Some(rule) if rule.policy.effect() == Effect::Permit && stood.standing == Standing::Shadow => {
                kept.insert(id.clone(), Stood { standing: Standing::Shadow, of: rule.hash() });
            }
            Some(rule) => drop(changed.insert(full, rule.standing)),
            None => {}
        }
    }
    (kept, changed)
}
