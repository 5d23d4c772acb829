//! Refusals: each reaches ctr's error word for word, and leaves nothing of the container.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use simnode::Change;

/// Flags of `ctr run` that ask by these annotations.
fn asking(annotations: &[&str]) -> Vec<String> {
    annotations
        .iter()
        .flat_map(|one| ["--annotation".to_owned(), format!("berth.dev/{one}")])
        .collect()
}

fn refuses(world: &World, annotations: &[&str], words: &str) -> Result<()> {
    let flags = asking(annotations);
    world.refuses(&flags.iter().map(String::as_str).collect::<Vec<_>>(), words)
}

pub fn annotations_that_cannot_be_understood(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    for (annotations, words) in [
        (
            &["gpus=two"][..],
            "berth: annotation berth.dev/gpus=\"two\": it is not a whole number of GPUs; \
             write for example berth.dev/gpus: \"2\"",
        ),
        (
            &["gpus=0"],
            "berth: annotation berth.dev/gpus=\"0\": no GPUs is no request: leave the annotation out, or write \
             <container>.berth.dev/gpus: none; write for example berth.dev/gpus: \"2\"",
        ),
        (
            &["gpu=1"],
            "berth: annotation berth.dev/gpu=\"1\": there is no such field (did you mean berth.dev/gpus?); the fields are \
             gpus, devices, mig, memory, compute, driver-capabilities, cpus, numa, isolation, extras",
        ),
        (
            &["devices=0"],
            "berth: annotation berth.dev/devices=\"0\": \"0\" is an index, and indices change: name the GPU's UUID; \
             write for example berth.dev/devices: \"GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d\"",
        ),
        (
            &["gpus=1", "devices=GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d"],
            "berth: annotations berth.dev/gpus=\"1\" and berth.dev/devices=\"GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d\" \
             contradict each other: a claim is exactly one of gpus, mig, devices, or memory and/or compute; remove one",
        ),
        (
            &["driver-capabilities=compute"],
            "berth: annotation berth.dev/driver-capabilities=\"compute\": it says how to give GPUs, but none are asked for, \
             and nobody has allocated any; add for example berth.dev/gpus: \"1\", or remove it",
        ),
    ] {
        refuses(&world, annotations, words)?;
    }
    // Of a container of a pod, where there is none.
    world.refuses(
        &["--annotation", "main.berth.dev/gpus=1"],
        "berth: annotation main.berth.dev/gpus=\"1\": it addresses one container of a pod, and this container is in none; \
         write berth.dev/gpus",
    )
}

pub fn what_is_not_in_this_version(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    for (annotations, words) in [
        (
            &["memory=8Gi", "compute=25%"][..],
            "berth: annotation berth.dev/memory=\"8Gi\": memory is not in this version; \
             ask for whole GPUs with gpus, or for a part of one with mig",
        ),
        (
            &["gpus=1", "isolation=limited"],
            "berth: annotation berth.dev/isolation=\"limited\": isolation: limited is not in this version; \
             write any, or leave it out",
        ),
    ] {
        refuses(&world, annotations, words)?;
    }
    // What does nothing yet is no reason to refuse.
    world
        .sleeper(&["--annotation", "berth.dev/gpus=1", "--annotation", "berth.dev/cpus=auto"])?
        .end()
}

pub fn no_room_names_every_candidate(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    let gpus: Vec<String> = world.state()?.gpus.into_iter().map(|gpu| gpu.uuid).collect();
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=3"])?;
    let (grant, label) = (world.grant()?, format!("{}/{}", task.ctr.namespace(), task.id));
    let held = uuids(&grant);
    let state = |uuid: &str| match held.contains(&uuid) {
        true => format!("held by {label}"),
        false => "free".to_owned(),
    };
    let candidates: Vec<String> =
        gpus.iter().map(|uuid| format!("{uuid}: {}", state(uuid))).collect();
    let words =
        format!("berth: no room for gpus 2: {}; nearest fit: gpus 1", candidates.join("; "));
    refuses(&world, &["gpus=2"], &words)?;
    // Of devices only those that are named are told of.
    let words =
        format!("berth: no room for devices {0}: {0}: held by {label}; nothing is free", held[0]);
    let free = gpus.iter().filter(|uuid| !held.contains(&uuid.as_str())).count();
    let words =
        if free > 0 { words.replace("nothing is free", "nearest fit: gpus 1") } else { words };
    refuses(&world, &[&format!("devices={}", held[0])], &words)?;
    let unknown = "GPU-00000000-1111-2222-3333-444444444444";
    let words = format!(
        "berth: no room for devices {unknown}: {unknown}: not on this node; nearest fit: gpus 1"
    );
    refuses(&world, &[&format!("devices={unknown}")], &words)?;
    task.end()?;
    world.node.is_free()
}

pub fn a_node_without_a_driver(stage: &Stage) -> Result<()> {
    let words = "berth: no NVIDIA driver is loaded on this node, so it has no GPU to give; \
                 load the driver (modprobe nvidia) or choose another node";
    let world = World::up(stage, "none", "")?;
    refuses(&world, &["gpus=1"], words)?;
    // The same when it is unloaded under our eyes, whatever was observed before.
    let world = World::up(stage, "one", "")?;
    world.sleeper(&ONE_GPU)?.end()?;
    world.node.sim.change(Change::Unload)?;
    refuses(&world, &["gpus=1"], words)?;
    world.node.sim.change(Change::Load)?;
    world.sleeper(&ONE_GPU)?.end()
}

pub fn what_the_operator_bars(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "[policy]\nannotation-requests = \"deny\"")?;
    let namespace = world.containerd.namespace().to_owned();
    let first = world.state()?.gpus[0].uuid.clone();
    let asker = format!("containers of containerd namespace {namespace:?}");
    let words = format!(
        "berth: annotation berth.dev/gpus: {asker} may not ask: policy.annotation-requests is \"deny\"; \
         the node's operator can allow it: policy.annotation-requests = \"auto\""
    );
    refuses(&world, &["gpus=1"], &words)?;
    world.node.configure("[policy]\ndevices = \"off\"")?;
    let words = format!(
        "berth: annotation berth.dev/devices: {asker} may not ask: policy.devices is \"off\", and gpus and mig would not name devices; \
         the node's operator can allow it: policy.devices = \"non-cri\""
    );
    refuses(&world, &[&format!("devices={first}")], &words)?;
    world.node.configure(&format!("gpus = [{first:?}]"))?;
    let others = world.state()?.gpus.into_iter().skip(1).map(|gpu| gpu.uuid + ": not in node.gpus");
    let words = format!(
        "berth: no room for gpus 2: {first}: free; {}; nearest fit: gpus 1",
        others.collect::<Vec<_>>().join("; ")
    );
    refuses(&world, &["gpus=2"], &words)?;
    world.node.configure(&format!("[policy.ceilings.\"{namespace}\"]\ngpus = 1"))?;
    let task = world.sleeper(&ONE_GPU)?;
    let words = format!(
        "berth: no room for gpus 1 in namespace {namespace}: it holds gpus 1 of at most 1 \
         (policy.ceilings.{namespace:?}); release something first"
    );
    refuses(&world, &["gpus=1"], &words)?;
    task.end()
}

pub fn privileged_containers_with_a_request(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let words = "berth: berth.dev/gpus: the container is privileged (CAP_SYS_ADMIN is in its bounding set), \
                 so it could use every GPU of the node; take that away, or the node's operator sets policy.privileged = true";
    let flags = [&ONE_GPU[..], &["--privileged"]].concat();
    world.refuses(&flags, words)?;
    world.refuses(&[&ONE_GPU[..], &["--cap-add", "CAP_SYS_ADMIN"]].concat(), words)?;
    // Without a request it is none of our business.
    world.sleeper(&["--privileged"])?.end()?;
    world.node.configure("[policy]\nprivileged = true")?;
    let task = world.sleeper(&flags)?;
    ensure!(world.grant()?["unconfined"] == true, "recorded as what it is");
    ensure!(world.node.berth(&["ps"])?.out.contains("applied (unconfined)"), "and shown");
    task.end()?;
    world.node.is_free()
}

pub fn images_that_need_another_driver(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let gpu = world.state()?.gpus[0].clone();
    let driver =
        world.state()?.driver.map(|driver| (driver.version, driver.cuda)).unwrap_or_default();
    let has = |uuid: &str, arch: &str, brand: &str| {
        format!(
            "this node has driver {} with CUDA {}.{}, and {uuid} is of arch {arch}, brand {brand}",
            driver.0,
            driver.1 / 1000,
            driver.1 % 1000 / 10
        )
    };
    // As the driver calls cards since Hopper.
    let (arch, brand) = (gpu.model().compute, "nvidia");
    let has = has(&gpu.uuid, &format!("{}.{}", arch.0, arch.1), brand);
    for require in ["cuda>=99.0", "cuda>=12.0,driver<400 brand=geforce"] {
        let needs = format!("NVIDIA_REQUIRE_CUDA={require}");
        let flags = [&ONE_GPU[..], &["--env", &needs]].concat();
        let words = format!(
            "berth: the image needs NVIDIA_REQUIRE_CUDA={require:?}, but {has}; \
             use a node or an image that fits, or set NVIDIA_DISABLE_REQUIRE=1"
        );
        world.refuses(&flags, &words)?;
    }
    let unreadable = [&ONE_GPU[..], &["--env", "NVIDIA_REQUIRE_CUDA=cuda~12"]].concat();
    world.refuses(
        &unreadable,
        "berth: the image needs NVIDIA_REQUIRE_CUDA, in which \"cuda~12\" compares nothing (use = != < <= > >=); correct it, \
         for example \"cuda>=12.4 brand=tesla,driver>=535\", or set NVIDIA_DISABLE_REQUIRE=1",
    )?;
    for fits in [
        &["NVIDIA_REQUIRE_CUDA=cuda>=12.0 brand=tesla,driver<400"][..],
        &["NVIDIA_REQUIRE_CUDA=cuda>=99.0", "NVIDIA_DISABLE_REQUIRE=1"],
    ] {
        let env = fits.iter().flat_map(|one| ["--env", one]);
        let flags: Vec<&str> = ONE_GPU.into_iter().chain(env).collect();
        world.sleeper(&flags)?.end()?;
    }
    world.node.is_free()
}

/// With or without criu on this machine: nobody asks for it.
pub fn a_checkpoint_of_a_container_with_a_gpu(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let grant = world.grant()?;
    let said = task.ctr.run(&["task", "checkpoint", &task.id])?;
    let words = format!(
        "berth: cannot checkpoint container {:?}: it holds a GPU (grant {}), and what is in a GPU's memory cannot be saved with it; \
         let the program save its own state: failed precondition",
        task.id,
        grant["grant"].as_str().unwrap_or_default()
    );
    ensure!(said.code() == 1 && said.err.contains(&words), "{said:?} is not {words}");
    ensure!(task.exec(&["true"])?.code() == 0, "it runs on");
    ensure!(world.grant()? == grant, "and keeps its grant");
    task.end()?;
    world.node.is_free()
}
