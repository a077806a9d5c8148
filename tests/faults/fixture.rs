//! The fixture of a test: a place, an operator restricted to it, and a proxy in front of each of its two
//! servers.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use laurel::api::RegisteredModel;
use tokio::time::Instant;

pub(crate) use crate::simulated::place::PATIENCE;
use crate::{
    invariants::Invariants,
    operator::Operator,
    simulated::{
        machine::RUNTIME,
        place::{Place, reported},
    },
    wire::{Journal, Proxy, Server, Upstream},
    world::{PURPOSE, World, release_all},
};

/// Time limit of one story, without cleaning up.
const LONGEST: Duration = Duration::from_mins(12);

/// Two polls of the registry: how long nothing may be written before it counts as quiet.
pub(crate) const TWO_POLLS: Duration = Duration::from_secs(10);

/// The fixture of a test.
pub(crate) struct Fixture {
    place: Place,
    /// The operator of this fixture only.
    pub(crate) operator: Operator,
    /// Between the operator and the API server. The test's own requests bypass it.
    pub(crate) kubernetes: Proxy,
    /// Between the operator and MLflow. The test's own requests bypass it.
    pub(crate) registry: Proxy,
    /// The operator's requests to both.
    pub(crate) journal: Arc<Journal>,
    pub(crate) invariants: Invariants,
    /// When the fixture was created.
    pub(crate) began: Instant,
}

impl Deref for Fixture {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

/// Runs a test with a running operator, and always cleans up.
pub(crate) fn run(name: &str, story: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    run_before_start(name, async |fixture| {
        fixture.operator.start().await?;
        story(fixture).await
    });
}

/// The same, with an operator that is not running yet.
pub(crate) fn run_before_start(name: &str, story: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    if let Err(error) = RUNTIME.block_on(run_case(name, story)) {
        panic!("{error:#}");
    }
}

/// Runs a story in its own fixture, whose operator is not running yet: one of several that a test runs at the
/// same time. Violated invariants are errors as well.
pub(crate) async fn run_case<T>(name: &str, story: impl AsyncFnOnce(&Fixture) -> Result<T>) -> Result<T> {
    let fixture = Fixture::create(World::get().await?, name).await?;
    let mut end = None;
    let mut result = reported(
        async {
            end = Some(story(&fixture).await?);
            Ok(())
        },
        LONGEST,
    )
    .await;
    if result.is_ok() {
        result = fixture.verdict().await;
    }
    println!("{name}: {:.1} s", fixture.began.elapsed().as_secs_f64());
    if let Err(error) = &result {
        println!("--- {name}: {error:#}");
        fixture.show().await;
        println!("--- {name}: the operator's writes\n{}", fixture.journal.writes_since(fixture.began));
        println!("--- {name}: the operator's log\n{}", fixture.operator.log(60));
    }
    let cleaned = Box::pin(fixture.clean_up()).await.with_context(|| format!("{name}: cleaning up"));
    result.and(cleaned)?;
    end.context("the story has an end")
}

impl Fixture {
    async fn create(world: &'static World, name: &str) -> Result<Self> {
        // A test may run several cases of one name.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("f-{name}-{count}-{}", std::process::id());
        let place = Place::create(&world.cluster, &world.mlflow, namespace, PURPOSE).await?;
        let journal = Arc::default();
        let kubernetes = Proxy::open(Server::Kubernetes, world.api_server.clone(), &journal).await?;
        let registry = Proxy::open(Server::Registry, Upstream::Local(world.mlflow.port), &journal).await?;
        place.default_registry(&registry.url()).await?;
        let operator = Operator::new(&world.folder, &place.namespace, &place.namespace, &kubernetes)?;
        let invariants = Invariants::begin(&place, &world.poll);
        Ok(Self { place, operator, kubernetes, registry, journal, invariants, began: Instant::now() })
    }

    /// Creates a second operator with the same scope. It has a proxy of its own in front of the API server;
    /// its requests to MLflow take the same way as the first one's.
    pub(crate) async fn second(&self) -> Result<(Operator, Proxy)> {
        let world = World::get().await?;
        let kubernetes = Proxy::open(Server::Kubernetes, world.api_server.clone(), &self.journal).await?;
        let name = format!("{}-second", self.namespace);
        Ok((Operator::new(&world.folder, &self.namespace, &name, &kubernetes)?, kubernetes))
    }

    /// Fails if an invariant was violated.
    async fn verdict(&self) -> Result<()> {
        self.audit.verdict().await?;
        self.invariants.verdict(&self.place, &self.journal).await
    }

    /// Sets `@champion` to a version in the registry, as a person does.
    pub(crate) async fn move_alias(&self, version: &str) -> Result<()> {
        self.invariants.excuse_alias(version);
        self.mlflow.set_alias(&self.model, "champion", version).await
    }

    /// Waits until the operator has written nothing for two polls of the registry.
    pub(crate) async fn until_quiet(&self) -> Result<()> {
        self.journal.until_quiet(TWO_POLLS, TWO_POLLS + PATIENCE).await
    }

    /// Removes all faults.
    pub(crate) async fn pass(&self) -> Result<()> {
        for proxy in [&self.kubernetes, &self.registry] {
            proxy.lift_all();
            proxy.accept().await?;
        }
        Ok(())
    }

    /// Removes all faults, and starts the operator if it is not running.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.pass().await?;
        if !self.operator.is_running() {
            self.operator.start().await?;
        }
        Ok(())
    }

    /// Deletes everything.
    async fn clean_up(self) -> Result<()> {
        let cleaned = async {
            self.heal().await?;
            self.place.clean_up().await?;
            let models = self.api::<RegisteredModel>();
            for model in models.list(&ListParams::default()).await? {
                if !model.finalizers().is_empty() {
                    models.delete(&model.name_any(), &DeleteParams::default()).await?;
                    self.gone(&models, &model, Duration::from_secs(75)).await?;
                }
            }
            Ok(())
        };
        let cleaned = cleaned.await;
        self.invariants.end();
        // Without an operator nobody else removes the finalizers.
        release_all(&self.cluster, &self.namespace).await?;
        if cleaned.is_err() {
            self.place.clean_up().await?;
        }
        if self.operator.is_running() {
            self.operator.kill()?;
        }
        cleaned
    }
}
