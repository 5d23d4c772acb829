//! `NVIDIA_REQUIRE_*` as real images have it, and against an evaluator written from the description alone.

mod nodes;

use nodes::*;
use plan::*;
use proptest::prelude::*;

/// Of the CUDA 12.4.1 images: CUDA itself, or forward compatibility on the branches that NVIDIA supports for it, brand by brand.
fn cuda_12_4() -> String {
    let brands =
        "tesla unknown nvidia nvidiartx geforce geforcertx quadro quadrortx titan titanrtx";
    let mut text = "cuda>=12.4".to_owned();
    for branch in [470, 525, 535] {
        for brand in brands.split(' ') {
            text += &format!(" brand={brand},driver>={branch},driver<{}", branch + 1);
        }
    }
    text
}

fn with(version: &str, cuda: (u32, u32)) -> Driver {
    Driver { version: version.into(), cuda: CudaVersion { major: cuda.0, minor: cuda.1 } }
}

fn check(entries: &[&str], driver: &Driver, gpus: &[&Gpu]) -> Result<(), String> {
    let env: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    requirement::Requirements::parse(&env)
        .and_then(|all| all.check(driver, gpus))
        .map_err(|refusal| refusal.to_string())
}

fn h100(brand: &str) -> Gpu {
    Gpu { brand: brand.into(), ..gpu(0, uuid(0), Some(0)) }
}

/// Whether an H100 with driver 550.163.01 and CUDA 12.4 meets `value`.
fn meets(value: &str) -> Result<bool, String> {
    let entry = format!("NVIDIA_REQUIRE_CUDA={value}");
    match requirement::Requirements::parse(&[entry])
        .and_then(|all| all.check(&driver(), &[&h100("nvidia")]))
    {
        Ok(()) => Ok(true),
        Err(Refusal::Requirement { .. }) => Ok(false),
        Err(refusal) => Err(refusal.to_string()),
    }
}

#[test]
fn a_cuda_12_4_image_runs_where_nvidia_says_that_it_does() {
    let entry = format!("NVIDIA_REQUIRE_CUDA={}", cuda_12_4());
    let runs = |driver: Driver, brand: &str| check(&[&entry], &driver, &[&h100(brand)]).is_ok();
    assert!(runs(with("550.54.15", (12, 4)), "geforce"), "CUDA 12.4 itself");
    assert!(runs(with("570.86.10", (12, 8)), "nvidia"), "newer CUDA");
    assert!(runs(with("535.183.01", (12, 2)), "Tesla"), "forward compatibility, any case");
    assert!(!runs(with("545.23.08", (12, 3)), "tesla"), "not of a supported branch");
    assert!(!runs(with("535.183.01", (12, 2)), "nvs"), "not of a supported brand");
    assert!(!runs(with("450.80.02", (11, 0)), "tesla"), "too old for both");
}

#[test]
fn a_refusal_names_the_variable_its_value_and_what_there_is() {
    let entry = format!("NVIDIA_REQUIRE_CUDA={}", cuda_12_4());
    let words = check(&[&entry], &with("450.80.02", (11, 0)), &[&h100("tesla")]);
    assert_eq!(
        words.expect_err("too old"),
        "berth: the image needs NVIDIA_REQUIRE_CUDA=\"cuda>=12.4 brand=tesla,driver>=470,driver<471 \
         brand=unknown,driver>=470,driver<471 brand=nvidia,driver>=470,driver<471 b\"…, but this node has driver \
         450.80.02 with CUDA 11.0, and GPU-00000000-0000-4000-8000-000000000000 is of arch 9.0, brand tesla; \
         use a node or an image that fits, or set NVIDIA_DISABLE_REQUIRE=1"
    );
}

#[test]
fn versions_compare_number_by_number() {
    for (value, holds) in [
        ("cuda=12.4", true),
        ("cuda=12.4.0", true),
        ("cuda>=12.4.1", false),
        ("cuda>12", true),
        ("cuda<=12", false),
        ("cuda>=12.10", false),
        ("driver=550.163.1", true),
        ("driver>=550", true),
        ("driver<551", true),
        ("driver!=550.163.01", false),
        ("arch>=9.0", true),
        ("ARCH<9", false),
        ("brand=NVIDIA", true),
        ("brand!=tesla", true),
    ] {
        assert_eq!(meets(value), Ok(holds), "{value}");
    }
}

#[test]
fn spaces_are_or_and_commas_are_and() {
    assert_eq!(meets("cuda>=13 driver>=550"), Ok(true));
    assert_eq!(meets("cuda>=13,driver>=550"), Ok(false));
    assert_eq!(meets("cuda>=13,driver>=550 brand=nvidia,arch=9.0"), Ok(true));
}

#[test]
fn nothing_is_asked_by_an_empty_value() {
    assert_eq!(meets(""), Ok(true));
    assert_eq!(meets("  "), Ok(true));
    assert_eq!(meets("cuda>=13 ,"), Ok(true), "as in libnvidia-container");
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    assert_eq!(
        meets("cuda>=12.0 memory>=8").expect_err("no such key"),
        "berth: the image needs NVIDIA_REQUIRE_CUDA, in which \"memory>=8\" is about nothing that is known \
         (cuda, driver, arch, brand are); correct it, for example \"cuda>=12.4 brand=tesla,driver>=535\", \
         or set NVIDIA_DISABLE_REQUIRE=1"
    );
    for bad in [
        "cuda",
        ">=12",
        "cuda>=",
        "cuda=>12",
        "cuda==12",
        "cuda>=12.x",
        "cuda>=v12",
        "brand>=tesla",
        "cuda>=12..4",
    ] {
        assert!(meets(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_gpu_and_every_variable_counts() {
    let (old, new) = (
        Gpu { compute_capability: CudaVersion { major: 7, minor: 5 }, ..gpu(1, uuid(1), None) },
        h100("nvidia"),
    );
    let entry = ["NVIDIA_REQUIRE_ARCH=arch>=8.0"];
    assert!(check(&entry, &driver(), &[&new]).is_ok());
    let words = check(&entry, &driver(), &[&new, &old]).expect_err("one is too old");
    assert!(words.contains(uuid(1).as_str()), "{words}");
    let two = ["NVIDIA_REQUIRE_CUDA=cuda>=12", "NVIDIA_REQUIRE_DRIVER=driver>=600"];
    let words = check(&two, &driver(), &[&new]).expect_err("the second fails");
    assert!(words.contains("NVIDIA_REQUIRE_DRIVER"), "{words}");
}

#[test]
fn without_a_gpu_only_the_driver_can_fail() {
    assert!(check(&["NVIDIA_REQUIRE_X=arch>=99,brand=none,cuda>=12"], &driver(), &[]).is_ok());
    assert!(check(&["NVIDIA_REQUIRE_X=cuda>=13"], &driver(), &[]).is_err());
}

#[test]
fn requirements_can_be_disabled_overridden_and_are_not_tegras() {
    let failing = "NVIDIA_REQUIRE_CUDA=cuda>=99";
    let gpu = h100("nvidia");
    for yes in ["1", "true", "True", "t"] {
        let entry = format!("NVIDIA_DISABLE_REQUIRE={yes}");
        assert!(check(&[failing, &entry], &driver(), &[&gpu]).is_ok(), "{yes}");
    }
    for no in ["0", "false", "", "yes"] {
        let entry = format!("NVIDIA_DISABLE_REQUIRE={no}");
        assert!(check(&[failing, &entry], &driver(), &[&gpu]).is_err(), "{no}");
    }
    assert!(check(&[failing, "NVIDIA_REQUIRE_CUDA=cuda>=12"], &driver(), &[&gpu]).is_ok());
    assert!(check(&["NVIDIA_REQUIRE_JETPACK=x", "OTHER=cuda>=99"], &driver(), &[&gpu]).is_ok());
}

/// Versions of the naive evaluator: at most three parts, compared as they stand once padded.
fn padded(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().expect("digits"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn naive(text: &str) -> bool {
    let alternatives: Vec<&str> = text.split(' ').collect();
    alternatives.iter().any(|alternative| {
        alternative.split(',').all(|one| {
            // Two signs before one, else `>=` would be read as `>`.
            let sign = ["!=", "<=", ">=", "=", "<", ">"].into_iter().find(|s| one.contains(s));
            let (key, value) = one.split_once(sign.expect("a sign")).expect("two sides");
            let node = match key {
                "cuda" => "12.4",
                "driver" => "550.163.01",
                "arch" => "9.0",
                _ => return (sign == Some("=")) == (value == "nvidia"),
            };
            let (node, value) = (padded(node), padded(value));
            match sign.expect("a sign") {
                "=" => node == value,
                "!=" => node != value,
                "<" => node < value,
                "<=" => node <= value,
                ">" => node > value,
                _ => node >= value,
            }
        })
    })
}

proptest! {
    #[test]
    fn evaluation_agrees_with_the_naive_evaluator(
        alternatives in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    "(cuda|arch)(=|!=|<|<=|>|>=)(8|9|12|12\\.4|12\\.10|9\\.0|12\\.4\\.0)",
                    "driver(=|!=|<|<=|>|>=)(550|551|550\\.163|550\\.163\\.1|550\\.90|0)",
                    "brand(=|!=)(tesla|nvidia)",
                ],
                1..4,
            ),
            1..4,
        ),
    ) {
        let all: Vec<String> = alternatives.iter().map(|all| all.join(",")).collect();
        let text = all.join(" ");
        prop_assert_eq!(meets(&text), Ok(naive(&text)), "{}", text);
    }

    #[test]
    fn no_value_makes_it_panic(value in "[cudabrn>=!<, .0-9\u{0}é]{0,30}") {
        let _ = meets(&value);
    }
}

#[test]
fn an_image_cannot_bring_requirements_without_end() {
    let long = "cuda>=12 ".repeat(1000);
    let entries = [format!("NVIDIA_REQUIRE_A={long}"), format!("NVIDIA_REQUIRE_B={long}")];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    assert!(check(&entries[..1], &driver(), &[]).is_ok());
    let words = check(&entries, &driver(), &[]).expect_err("too much");
    assert!(words.contains("NVIDIA_REQUIRE_B") && words.contains("16384 bytes"), "{words}");
}
