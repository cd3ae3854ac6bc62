//! Compositions that operators register.

use super::{Error, Governor, State};
use crate::compositions::{self as registry, Registered, reference};
use serde_json::Value;
use std::sync::Arc;
use warden_core::composition::problem::Problem;
use warden_core::composition::register::Checked;
use warden_core::journal::record::PolicyEvent;

/// Why a composition is not registered.
#[derive(Debug, thiserror::Error)]
pub enum NotRegistered {
    /// What is wrong with it, all of it.
    #[error("the composition cannot be registered")]
    Problems(Vec<Problem>),
    /// There is another one of that name.
    #[error("`{reference}` is registered with another content ({hash}): give the changed one another version")]
    Other {
        /// `SLUG@VERSION`.
        reference: String,
        /// Of the one that is there.
        hash: String,
    },
    /// It could not be put in force.
    #[error(transparent)]
    Change(#[from] Error),
}

impl Governor {
    /// Registers a composition: read strictly, recorded, kept, in force for whoever is bound to it. Whether it is a new one.
    pub async fn register(&self, operator: &str, document: Value) -> Result<(Registered, bool), NotRegistered> {
        let checked = registry::read(&document, &self.setup.classes()).map_err(NotRegistered::Problems)?;
        let reference = reference(&checked);
        let mut state = self.state.lock().await;
        if let Some(there) = state.compositions.get(&reference) {
            return match there.checked.hash == checked.hash {
                true => Ok((there.clone(), false)),
                false => Err(NotRegistered::Other { reference, hash: there.checked.hash.clone() }),
            };
        }
        let registered = Registered { document: Arc::new(document), checked: Arc::new(checked) };
        let mut next: State = state.clone();
        next.compositions.insert(reference.clone(), registered.clone());
        let object = format!("{reference} {}", registered.checked.hash);
        let object = match registered.checked.widening.len() {
            0 => object,
            ignored => format!("{object} widening_ignored={ignored}"),
        };
        let act = (operator, ("composition_register", object));
        self.change_by(&mut state, next, PolicyEvent::Composed, act, Vec::new()).await?;
        Ok((registered, true))
    }

    /// What the keys of one name that is not there, as things stand.
    pub async fn idle_keys(&self, checked: &Checked) -> Vec<String> {
        self.setup.idle_keys(checked, &self.state.lock().await.catalogue)
    }

    /// All that are registered.
    pub async fn compositions(&self) -> registry::Compositions {
        self.state.lock().await.compositions.clone()
    }
}
