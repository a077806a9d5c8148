//! A namespace full of ModelAliases is deleted, and the operator with `scope: namespace` in it.
//!
//! Each ModelAlias has an alias in MLflow to delete. `make bench-namespace` runs it with 2,000 of them, on a
//! machine that does nothing else: the operator ends when it cannot renew its Lease.

use std::{fmt::Write, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use laurel::{api::ModelAlias, decide::REGISTRY_DEADLINE};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    evidence::World,
    install::{Install, Operator, Scope},
    namespace_end::{GRACE, Standin},
    simulated::{
        machine::{Company, RUNTIME, admitted, install_crds},
        place::{Place, reported},
    },
};

/// Time limit for 2,000, without cleaning up.
const LONGEST: Duration = Duration::from_mins(30);

/// So few that the registry deletes all their aliases in time.
const FEW: usize = 100;

/// How long Kubernetes may take for a namespace in which nothing is held. It looks more and more rarely.
const KUBERNETES: Duration = Duration::from_mins(3);

/// How long setting up one ModelAlias may take on average, on a busy machine.
const EACH: Duration = Duration::from_millis(500);

#[test]
fn promise_9_a_namespace_with_100_model_aliases_ends_with_the_operator_inside() {
    run(FEW, Mlflow::Answers);
}

#[test]
fn promise_9_a_namespace_ends_with_the_operator_inside_while_the_registry_is_unreachable() {
    run(20, Mlflow::IsAway);
}

#[test]
#[ignore = "`make bench-namespace` runs it: it takes minutes"]
fn a_namespace_with_2000_model_aliases_ends_with_the_operator_inside() {
    run(2000, Mlflow::Answers);
}

/// What the registry does when the namespace is deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mlflow {
    Answers,
    IsAway,
}

fn run(count: usize, mlflow: Mlflow) {
    RUNTIME.block_on(async {
        if let Err(error) = Box::pin(with_operator(count, mlflow)).await {
            panic!("{error:#}");
        }
    });
}

async fn with_operator(count: usize, mlflow: Mlflow) -> Result<()> {
    let world = World::get().await?;
    let _admitted = admitted(Company::Shared).await?;
    install_crds(&world.cluster).await?;
    let name = format!("lp-{count}-{}", std::process::id()); // The count differs in each test.
    let place = Place::create(&world.cluster, &world.mlflow, name.clone(), crate::evidence::PURPOSE).await?;
    let install = Install::apply(&world.cluster, Scope::Namespace, &name, &name).await?;
    let folder = world.folder.join(&name);
    fs::create_dir_all(&folder)?;
    let operator = install.start_logging(&folder, "info")?;
    let mut result = reported(Box::pin(story(&place, &install, &operator, (count, mlflow))), LONGEST).await;
    if result.is_err() {
        let log = operator.log()?;
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
        println!("--- the operator\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    }
    operator.end()?;
    if result.is_err() {
        let let_go = crate::evidence::let_go(&place).await;
        result = result.and(place.clean_up().await).and(let_go);
    }
    result
}

async fn story(
    place: &Place,
    install: &Install,
    operator: &Operator,
    (count, mlflow): (usize, Mlflow),
) -> Result<()> {
    operator.until_ready().await?;
    let (url, proxy) = proxy_before(place.mlflow.port).await?;
    place.default_registry(&url).await?;
    place.registered(1).await?;
    let began = Instant::now();
    create(place, count).await?;
    until_ready(place, count).await?;
    println!("  {count} ModelAliases are Ready after {:.1?}", began.elapsed());

    let standin = Standin::create(place, install).await?;
    let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
    let uid = namespaces.get(&place.namespace).await?.metadata.uid.unwrap_or_default();
    if mlflow == Mlflow::IsAway {
        proxy.abort();
    }
    let began = Instant::now();
    namespaces.delete(&place.namespace, &DeleteParams::default()).await?;
    standin.is_told_to_end().await?;
    operator.terminate(GRACE).await?;
    let ended = began.elapsed();
    println!("  the operator has ended after {ended:.1?}");
    standin.let_go().await?;
    timeout(KUBERNETES, await_condition(namespaces, &place.namespace, is_deleted(&uid)))
        .await
        .context("the namespace is not gone")??;
    println!("  the namespace is gone after {:.1?}", began.elapsed());
    let model = place.mlflow.model(&place.model).await?.context("the model is gone")?;
    let left = model["aliases"].as_array().map_or(0, Vec::len);
    println!("  {left} aliases are left in MLflow");
    if mlflow == Mlflow::IsAway {
        ensure!(left == count, "{left} are left");
    } else if count <= FEW {
        let longest = Duration::try_from(REGISTRY_DEADLINE)?;
        ensure!(
            ended < longest && left == 0,
            "some waited until the deadline for a registry: {ended:.1?}, {left} left"
        );
    }
    Ok(())
}

/// Forwards connections to MLflow until the task is aborted. Returns its URL.
async fn proxy_before(port: u16) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
    let forward = RUNTIME.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Either end may close the connection.
                    drop(copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    Ok((url, forward))
}

/// ModelAliases of one model that only keep an alias.
async fn create(place: &Place, count: usize) -> Result<()> {
    let mut manifest = String::new();
    for number in 0..count {
        write!(
            manifest,
            "---\napiVersion: laurel.dev/v1alpha1\nkind: ModelAlias\nmetadata: {{name: a-{number}}}\nspec: {{modelRef: \
             {{name: model}}, alias: a-{number}, version: '1', deletionPolicy: Delete}}\n"
        )?;
    }
    let create = ["create", "-n", &place.namespace, "-f", "-"];
    place.cluster.run_kubectl(&create, Some(&manifest)).await.map(drop)
}

async fn until_ready(place: &Place, count: usize) -> Result<()> {
    let aliases: Api<ModelAlias> = place.api();
    let began = Instant::now();
    let longest = Duration::from_mins(1) + EACH * u32::try_from(count)?;
    loop {
        let all = aliases.list(&ListParams::default()).await?;
        let ready = all.iter().filter(|alias| crate::support::alias::is_ready(alias, 1)).count();
        if ready == count {
            return Ok(());
        }
        ensure!(began.elapsed() < longest, "{ready} of {count} are Ready");
        sleep(Duration::from_secs(1)).await;
    }
}
