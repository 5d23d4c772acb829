//! Manifests as people write them: what is read of them, and what is said of those that are wrong.

use clap::Parser;
use engine::Supposed;

use super::*;
use crate::cli::{Cli, Command};

fn args(flags: &[&str]) -> PlanArgs {
    let cli = Cli::try_parse_from([&["berth", "plan"], flags].concat()).expect("a command line");
    let Command::Plan(args) = cli.command else { panic!("it is plan") };
    *args
}

fn wanted(text: &str) -> Wanted {
    read(text, "pod.yaml", &args(&["-f", "pod.yaml"])).unwrap_or_else(|error| panic!("{error:#}"))
}

fn problem(text: &str) -> String {
    let read = read(text, "pod.yaml", &args(&["-f", "pod.yaml"]));
    read.err().map_or_else(|| panic!("it is read: {text}"), |error| error.to_string())
}

fn supposed(pod: &Pod, container: usize) -> Supposed {
    (pod.containers[container].supposed)(0)
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: train
  namespace: team
  annotations:
    berth.dev/gpus: "2"
    watcher.berth.dev/gpus: none
spec:
  runtimeClassName: berth
  containers:
  - name: main
    image: train
    env:
    - {name: NVIDIA_REQUIRE_CUDA, value: "cuda>=12.0"}
    - name: FROM
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    resources:
      limits: {cpu: 1500m, memory: 1Gi}
  - name: watcher
    image: watch
    securityContext: {capabilities: {add: [SYS_ADMIN]}}
  initContainers:
  - name: fetch
    image: fetch
  - name: proxy
    image: proxy
    restartPolicy: Always
"#;

#[test]
fn a_pods_containers_are_read_in_the_order_of_their_start() {
    let wanted = wanted(POD);
    let [pod] = &wanted.pods[..] else { panic!("one pod") };
    assert_eq!(pod.name.as_deref(), Some("team/train"));
    let order: Vec<(&str, Kind)> =
        pod.containers.iter().map(|one| (one.name.as_str(), one.kind)).collect();
    let expected = [
        ("fetch", Kind::Init),
        ("proxy", Kind::Sidecar),
        ("main", Kind::App),
        ("watcher", Kind::App),
    ];
    assert_eq!(order, expected);
    let main = supposed(pod, 2);
    assert_eq!(main.env, ["NVIDIA_REQUIRE_CUDA=cuda>=12.0"]);
    assert_eq!((main.cpu_limit, main.privileged), (Some(1500), false));
    assert_eq!(main.annotations["berth.dev/gpus"], "2");
    assert!(supposed(pod, 3).privileged);
    let of = |container| supposed(pod, container).pod.expect("a pod");
    assert_eq!(
        (of(0).namespace, of(0).name, of(0).container),
        ("team".into(), "train".into(), "fetch".into())
    );
    assert_eq!(of(0).sandbox, of(3).sandbox, "one pod");
    let another = (pod.containers[0].supposed)(1).pod.expect("a pod");
    assert_ne!(another.sandbox, of(0).sandbox, "the next time it is another");
    assert!(wanted.warnings.is_empty(), "{:?}", wanted.warnings);
}

#[test]
fn every_kind_that_makes_pods_is_planned_and_others_are_passed_over() {
    let spec = "spec: {runtimeClassName: berth, containers: [{name: main}]}";
    let templated = |kind: &str| {
        format!(
            "kind: {kind}\nmetadata: {{name: it}}\nspec:\n  template: {{metadata: {{annotations: {{berth.dev/gpus: '1'}}}}, {spec}}}\n"
        )
    };
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"] {
        let wanted = wanted(&templated(kind));
        let pod = &wanted.pods[0];
        assert_eq!(pod.name.as_deref(), Some("default/it"), "{kind}");
        assert_eq!(supposed(pod, 0).annotations["berth.dev/gpus"], "1", "{kind}");
    }
    let nightly = format!(
        "kind: CronJob\nmetadata: {{name: it}}\nspec: {{jobTemplate: {{spec: {{template: {{{spec}}}}}}}}}"
    );
    assert_eq!(wanted(&nightly).pods.len(), 1);
    let pod = format!("kind: Pod\nmetadata: {{name: a}}\n{spec}\n");
    let several = format!("{pod}---\nkind: Service\nmetadata: {{name: s}}\n---\n---\n{pod}");
    let several = wanted(&several);
    assert_eq!(several.pods.len(), 2);
    assert_eq!(
        several.warnings,
        ["Service s: it makes no pods that this command knows of, and is passed over"]
    );
    let sandbox = |pod: &Pod| supposed(pod, 0).pod.expect("a pod").sandbox;
    assert_ne!(sandbox(&several.pods[0]), sandbox(&several.pods[1]));
    let list = format!("kind: List\nitems:\n- {{kind: Pod, metadata: {{name: b}}, {spec}}}\n");
    assert_eq!(wanted(&list).pods[0].name.as_deref(), Some("default/b"));
    // As kubectl prints it.
    let json = r#"{"kind": "PodList", "items": [{"kind": "Pod", "metadata": {"name": "j"}, "spec": {"containers": [{"name": "m"}]}}]}"#;
    assert_eq!(wanted(json).pods[0].name.as_deref(), Some("default/j"));
}

#[test]
fn what_would_let_it_come_out_otherwise_is_said() {
    let pod = |more: &str| {
        let text = format!(
            "kind: Pod\nmetadata: {{name: it, annotations: {{berth.dev/gpus: '1', typo.berth.dev/gpus: '1'}}}}\nspec:\n  {more}"
        );
        wanted(&text).warnings
    };
    let main = "containers: [{name: main, resources: {limits: {nvidia.com/gpu: 1}, claims: [{name: gpu}]}}]";
    assert_eq!(
        pod(main),
        [
            "default/it: there is no runtimeClassName, so Berth is not asked; write runtimeClassName: berth",
            "default/it: container main asks for nvidia.com/gpu in its resources: another allocator decides then, and Berth takes what that gives",
            "default/it: container main asks for the resource claim \"gpu\" in its resources: another allocator decides then, and Berth takes what that gives",
            "default/it: annotation typo.berth.dev/gpus: the pod has no container \"typo\"",
        ]
    );
    let other = pod("runtimeClassName: nvidia\n  containers: [{name: typo}]");
    assert_eq!(
        other,
        [
            "default/it: runtimeClassName is \"nvidia\", not \"berth\": Berth is asked only if that class's handler is Berth's"
        ]
    );
    let three = "kind: Deployment\nmetadata: {name: it}\nspec: {replicas: 3, template: {spec: {runtimeClassName: berth, containers: [{name: m}]}}}";
    assert_eq!(
        wanted(three).warnings,
        ["default/it: replicas is 3, and one pod is planned; --count 3 plans as many on this node"]
    );
}

#[test]
fn what_cannot_be_read_is_said_with_its_place_and_a_way_out() {
    let pod = |more: &str| problem(&format!("kind: Pod\nmetadata: {{name: it}}\n{more}"));
    for (said, wanted) in [
        (problem("kind: [Pod"), "pod.yaml: "),
        (problem(""), "pod.yaml: there is no pod in it; a Pod is planned"),
        (problem("a: 1"), "pod.yaml: a document without kind"),
        (problem("kind: ConfigMap"), "there is no pod in it"),
        (pod("spec: {contaners: []}"), "pod.yaml: Pod it: spec.containers is empty or not there"),
        (pod("spec: {containers: {name: a}}"), "spec.containers is not a list"),
        (pod("spec: {containers: [{image: a}]}"), "spec.containers[0] has no name"),
        (
            pod("spec: {containers: [{name: a, resources: {limits: {cpu: many}}}]}"),
            "container a: resources.limits.cpu: \"many\" is no number of CPUs",
        ),
        (
            problem(
                "kind: Pod\nmetadata: {annotations: {berth.dev/gpus: 2}}\nspec: {containers: [{name: a}]}",
            ),
            "annotation berth.dev/gpus: 2 is not text, and Kubernetes takes no other; write berth.dev/gpus: \"2\"",
        ),
        (problem("a: &x 1\nb: *x"), "an anchor or a tag, which is not supported"),
    ] {
        assert!(said.contains(wanted), "{said}\n  is not\n{wanted}");
    }
}

#[test]
fn the_namespace_is_the_objects_or_the_flags_and_they_may_not_differ() {
    let bare = "kind: Pod\nmetadata: {name: it}\nspec: {containers: [{name: a}]}";
    let flagged = |text| read(text, "-", &args(&["-f", "-", "--namespace", "ml"]));
    let pods = flagged(bare).expect("fine").pods;
    assert_eq!(pods[0].name.as_deref(), Some("ml/it"));
    let both = flagged(POD).err().expect("they differ").to_string();
    assert!(
        both.ends_with("its namespace is \"team\", and --namespace says \"ml\"; leave one out"),
        "{both}"
    );
}
