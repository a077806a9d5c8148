//! Runs everything once for each scope of the chart, and keeps the evidence.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    audit::{Request, requests},
    install::{Install, Operator, Scope},
    login::{Rejections, Secrets},
    older::Older,
    planted::Secret,
    rights::Right,
    simulated::{
        machine::{Company, RUNTIME, admitted, install_crds},
        mlflow::Mlflow,
        place::{Place, reported},
    },
    story::Story,
    support::{cluster::Cluster, watch::Seen},
};

/// The purpose label of these tests' namespaces.
pub(crate) const PURPOSE: &str = "least-privilege-test";

/// Time limit of a story, without cleaning up.
const LONGEST: Duration = Duration::from_mins(4);

/// The evidence of one run.
pub(crate) struct Evidence {
    /// The kinds of objects that the chart renders.
    pub(crate) kinds: BTreeSet<String>,
    /// What the chart's role grants.
    pub(crate) granted: BTreeSet<Right>,
    /// The operator's requests to the API server, except those about other tests.
    pub(crate) requests: Vec<Request>,
    /// The namespace of the objects.
    pub(crate) namespace: String,
    /// The pod templates of the operator and of serving pods, by name.
    pub(crate) templates: Vec<(String, Value)>,
    /// What the API server rejected.
    pub(crate) rejections: Rejections,
    /// The planted secrets.
    pub(crate) secrets: Vec<Secret>,
    /// All texts that people may read, by kind.
    pub(crate) texts: Vec<(String, String)>,
    /// The Secrets as returned by the API server.
    pub(crate) kept: String,
}

/// What all tests share.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) mlflow: Mlflow,
    pub(crate) folder: PathBuf,
}

static WORLD: OnceCell<World> = OnceCell::const_new();
static RUNS: [OnceCell<Result<Evidence, String>>; 2] = [const { OnceCell::const_new() }; 2];

impl World {
    pub(crate) async fn get() -> Result<&'static Self> {
        WORLD.get_or_try_init(Self::build).await
    }

    async fn build() -> Result<Self> {
        // It may exist already, with the same content.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cluster = Cluster::connect_control_plane().await?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("least_privilege");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mlflow = Mlflow::start(&folder).await?;
        Ok(Self { cluster, mlflow, folder })
    }
}

/// Returns the evidence for a scope; the first test that needs it gathers it.
pub(crate) fn of(scope: Scope) -> &'static Evidence {
    let result = RUNTIME.block_on(RUNS[scope as usize].get_or_init(|| async move {
        let result = Box::pin(gather(scope)).await;
        result.map_err(|error| format!("{error:#}"))
    }));
    result.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// Returns a client of the cluster for a test's own requests.
pub(crate) async fn cluster() -> Result<&'static Cluster> {
    Ok(&World::get().await?.cluster)
}

async fn gather(scope: Scope) -> Result<Evidence> {
    let world = World::get().await?;
    // An operator for all namespaces would reconcile other tests' objects.
    let company = if scope == Scope::Cluster { Company::Alone } else { Company::Shared };
    let _admitted = admitted(company).await?;
    let began = Instant::now();
    install_crds(&world.cluster).await?;
    let release = format!("lp-{}-{}", scope.value(), std::process::id());
    let place = Place::create(&world.cluster, &world.mlflow, release.clone(), PURPOSE).await?;
    let system = if scope == Scope::Cluster { format!("{release}-system") } else { release.clone() };
    if system != release {
        world.cluster.fresh_namespace(&system, PURPOSE).await?;
    }
    let install = Install::apply(&world.cluster, scope, &release, &system).await?;
    let folder = world.folder.join(scope.value());
    fs::create_dir_all(&folder)?;
    let before = format!("{release}-before");
    let older = if scope == Scope::Cluster {
        world.cluster.fresh_namespace(&before, PURPOSE).await?;
        Some(Older::create(&world.cluster, &before).await?)
    } else {
        None
    };
    let operator = install.start(&folder)?;

    let mut evidence = None;
    let story = async {
        if let Some(older) = &older {
            older.holds_back(&operator).await?;
        }
        operator.until_ready().await?;
        evidence = Some(run(scope, &place, &install, &operator).await?);
        Ok(())
    };
    let mut result = reported(Box::pin(story), LONGEST).await;
    if result.is_err() {
        let refused = requests(&install.account()?)?.into_iter().filter(|request| !request.allowed);
        let refused: Vec<String> = refused.map(|request| request.to_string()).collect();
        result = result.with_context(|| format!("the API server refused {refused:#?}"));
        place.show().await;
        let log = operator.log()?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(r#""target":"laurel"#)).collect();
        println!("--- the operator\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    let cleaned = place.clean_up().await;
    operator.end()?;
    let let_go = let_go(&place).await;
    install.remove().await?;
    if scope == Scope::Cluster {
        let delete = ["delete", "clustermodelregistry", &place.namespace, "--ignore-not-found"];
        world.cluster.run_kubectl(&delete, None).await?;
        world.cluster.terminate_namespace(&before).await?;
    }
    if system != release {
        world.cluster.terminate_namespace(&system).await?;
    }
    println!("scope {}: {:.1} s", scope.value(), began.elapsed().as_secs_f64());
    result.and(cleaned).and(let_go)?;
    evidence.context("nothing was run")
}

/// Removes the finalizers of objects left by a failed story: no operator is running any more to do it.
pub(crate) async fn let_go(place: &Place) -> Result<()> {
    let kinds = "modelaliases,registeredmodels";
    for name in place.kubectl(&["get", kinds, "-o", "name"]).await?.lines().filter(|line| line.contains('/'))
    {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        // The namespace is being deleted: a missing object needs no patch.
        drop(place.kubectl(&["patch", name, "--type=merge", "-p", patch]).await);
    }
    Ok(())
}

async fn run(scope: Scope, place: &Place, install: &Install, operator: &Operator) -> Result<Evidence> {
    let secrets = Secrets::plant();
    let story = Story::begin(place, &secrets)?;
    story.keep_secrets().await?;
    story.registries().await?;
    if scope == Scope::Cluster {
        story.registry_of_the_cluster().await?;
    }
    story.models().await?;
    story.champion().await?;
    story.runtimes().await?;
    story.experiment().await?;
    story.taken_names().await?;
    let mut templates = story.templates().await?;
    templates.push(("the operator".to_owned(), install.template()?));
    story.login_errors().await?;
    let rejections = story.rejections().await?;
    // While everything exists.
    let mut texts = cluster_texts(place).await?;
    texts.push(("its command line and environment".to_owned(), operator.process_table()?));
    for path in ["metrics", "healthz", "readyz"] {
        texts.push((format!("/{path}"), operator.get(path).await?));
    }
    let kept = place.kubectl(&["get", "secrets", "-o", "yaml"]).await?;
    story.ends().await?;
    if scope == Scope::Namespace {
        crate::namespace_end::ends_with_the_operator_inside(place, install, operator).await?;
    }
    let mut requests = requests(&install.account()?)?;
    if scope == Scope::Cluster {
        // Objects of other tests in their namespaces are ignored.
        let ours = ["", &place.namespace, &install.namespace];
        requests.retain(|request| ours.contains(&request.namespace.as_str()));
    }

    texts.push(("its log".to_owned(), operator.log()?));
    texts.push(("its requests to the API server".to_owned(), format!("{requests:#?}")));
    texts.push(("the states of ModelAliases".to_owned(), states(&place.champion.seen())?));
    texts.push(("the states of ModelRegistries".to_owned(), states(&story.registries.seen())?));
    texts.push(("the states of RegisteredModels".to_owned(), states(&story.models.seen())?));
    texts.push(("Events".to_owned(), states(&story.events.seen())?));
    let token = Secret::found("the operator's own token", &install.token);
    Ok(Evidence {
        kinds: install.kinds(),
        granted: install.granted()?,
        requests,
        namespace: place.namespace.clone(),
        templates,
        rejections,
        secrets: [secrets.all(), vec![token]].concat(),
        texts,
        kept,
    })
}

/// Returns kubectl's output about everything in a namespace, except its Secrets.
async fn cluster_texts(place: &Place) -> Result<Vec<(String, String)>> {
    let kinds = "modelregistries,registeredmodels,modelaliases,modelexperiments,deployments,replicasets,pods,services,endpointslices,\
                 events,events.events.k8s.io,configmaps";
    let mut texts = Vec::new();
    for arguments in [
        &["get", kinds, "-o", "yaml", "--show-managed-fields"][..],
        &["get", "laurel", "-o", "wide"],
        &["describe", "modelregistries,registeredmodels,modelaliases,deployments,pods"],
    ] {
        let text = place.kubectl(arguments).await?;
        texts.push((format!("kubectl {}", arguments.join(" ")), text));
    }
    Ok(texts)
}

fn states<K: Serialize>(seen: &[Seen<K>]) -> Result<String> {
    let lines: Result<Vec<String>, _> = seen.iter().map(|seen| serde_json::to_string(&seen.object)).collect();
    lines.map(|lines| lines.join("\n")).map_err(|error| anyhow!(error))
}
