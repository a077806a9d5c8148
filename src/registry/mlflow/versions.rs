//! Lists of versions: of one model, and of many models at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{MlflowRegistry, PAGE, Pages, filter, http::Call, wire::VersionPage};
use crate::{
    api::names::{ModelName, Version},
    registry::{RegistryError, VersionFacts},
};

fn search(filter: &str) -> Call {
    Call::get("model-versions/search").query("filter", filter)
}

impl MlflowRegistry {
    pub(super) async fn newest(
        &self,
        name: &ModelName,
        limit: usize,
    ) -> Result<Vec<VersionFacts>, RegistryError> {
        // MLflow answers max_results=0 with an error, or with an empty page that has a next page.
        if limit == 0 {
            return Ok(Vec::new());
        }
        let call = search(&filter::name(name))
            .query("order_by", "version_number DESC")
            .query("max_results", &limit.min(PAGE));
        // A map, because a version created between two pages shifts the others, which then appear twice.
        let mut versions = BTreeMap::new();
        let mut pages = Pages::default();
        loop {
            let VersionPage { model_versions, next_page_token } = self.list(&pages.next(&call)).await?;
            let page = model_versions.into_iter().flatten().filter_map(|version| version.facts_of(name));
            versions.extend(page.map(|facts| (facts.version, facts)));
            let more =
                pages.turn(next_page_token).map_err(|detail| self.http.not_a_registry(&call, detail))?;
            if versions.len() >= limit || !more {
                return Ok(versions.into_values().rev().take(limit).collect());
            }
        }
    }

    pub(super) async fn newest_of_each(
        &self,
        names: &BTreeSet<ModelName>,
        limit: usize,
    ) -> Result<BTreeMap<ModelName, Vec<VersionFacts>>, RegistryError> {
        let mut found = BTreeMap::new();
        for chunk in filter::chunks(names) {
            if limit == 0 || !self.lists.are_supported() {
                break;
            }
            match self.newest_of_chunk(chunk.into_iter().collect(), limit, &mut found).await {
                // Those that are missing are read one by one.
                Err(RegistryError::Rejected { detail }) => self.lists.heed(&detail),
                other => other?,
            }
        }
        Ok(found)
    }

    /// Asks for the first page only, and then again for the models that it does not show in full: pages by
    /// offset would skip versions while others are deleted.
    async fn newest_of_chunk(
        &self,
        mut rest: BTreeSet<&ModelName>,
        limit: usize,
        found: &mut BTreeMap<ModelName, Vec<VersionFacts>>,
    ) -> Result<(), RegistryError> {
        while !rest.is_empty() {
            let names: Vec<&ModelName> = rest.iter().copied().collect();
            let call = search(&filter::names(&names))
                .query("order_by", "name ASC")
                .query("order_by", "version_number DESC")
                .query("max_results", &PAGE);
            let VersionPage { model_versions, next_page_token } = self.list(&call).await?;
            let is_last = next_page_token.is_none_or(|token| token.is_empty());
            let (mut page, mut last) = (BTreeMap::<&ModelName, BTreeMap<Version, VersionFacts>>::new(), None);
            for version in model_versions.into_iter().flatten() {
                let name = names.iter().copied().find(|name| version.is_of(name));
                last = name;
                let Some(name) = name else { continue };
                let versions = page.entry(name).or_default();
                versions.extend(version.facts_of(name).map(|facts| (facts.version, facts)));
            }
            if !is_last {
                // The next page may have more of its versions.
                let is_cut = |name: &&ModelName| page.get(name).is_some_and(|all| all.len() < limit);
                if let Some(cut) = last.filter(is_cut) {
                    page.remove(cut);
                }
            }
            if is_last {
                rest.clear();
            } else if page.is_empty() {
                break;
            }
            for (name, versions) in page {
                rest.remove(name);
                found.insert(name.clone(), versions.into_values().rev().collect());
            }
        }
        Ok(())
    }
}
