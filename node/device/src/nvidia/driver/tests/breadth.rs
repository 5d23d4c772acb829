//! What draws, encodes and is for 32-bit programs: as distributions lay it out, and as containers get it.

use super::*;

/// Where a distribution has what is no library for 64-bit programs.
struct Distribution {
    libraries: &'static str,
    libraries_of_32_bits: &'static str,
    x_driver: &'static str,
    x_glx: &'static str,
    vulkan: &'static str,
}

const DEBIAN_MULTIARCH: Distribution = Distribution {
    libraries: "/usr/lib/x86_64-linux-gnu",
    libraries_of_32_bits: "/usr/lib/i386-linux-gnu",
    x_driver: "/usr/lib/x86_64-linux-gnu/nvidia/xorg",
    x_glx: "/usr/lib/x86_64-linux-gnu/nvidia/xorg",
    vulkan: "/usr/share/vulkan/icd.d/nvidia_icd.json",
};

const DEBIAN_ALTERNATIVES: Distribution = Distribution {
    libraries: DEBIAN,
    libraries_of_32_bits: "/usr/lib/i386-linux-gnu/nvidia/current",
    x_driver: "/usr/lib/nvidia/current",
    x_glx: "/usr/lib/nvidia/current",
    vulkan: "/etc/vulkan/icd.d/nvidia_icd.json",
};

const RED_HAT_MULTILIB: Distribution = Distribution {
    libraries: RED_HAT,
    libraries_of_32_bits: "/usr/lib",
    x_driver: "/usr/lib64/xorg/modules/drivers",
    x_glx: "/usr/lib64/xorg/modules/extensions",
    vulkan: "/usr/share/vulkan/icd.d/nvidia_icd.x86_64.json",
};

const DISTRIBUTIONS: [Distribution; 3] = [DEBIAN_MULTIARCH, DEBIAN_ALTERNATIVES, RED_HAT_MULTILIB];

const WAYLAND: &str = "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json";
const EGL: &str = "/usr/share/glvnd/egl_vendor.d/10_nvidia.json";
const OPTIX: &str = "/usr/share/nvidia/nvoptix.bin";
const OPENCL: &str = "/etc/OpenCL/vendors/nvidia.icd";

/// A node that has everything, as the distribution lays it out.
fn whole(distribution: &Distribution) -> Fake {
    let Distribution { libraries: dir, libraries_of_32_bits: narrow, .. } = distribution;
    let fake = installed(dir);
    for (stem, soname) in [
        ("libGLX_nvidia", "libGLX_nvidia.so.0"),
        ("libEGL_nvidia", "libEGL_nvidia.so.0"),
        ("libnvidia-allocator", "libnvidia-allocator.so.1"),
        ("libnvidia-ngx", "libnvidia-ngx.so.1"),
        ("vdpau/libvdpau_nvidia", "libvdpau_nvidia.so.1"),
    ] {
        fake.library(&format!("{dir}/{stem}.so.{VERSION}"), soname);
    }
    fake.library(&format!("{dir}/libnvidia-egl-gbm.so.1.1.1"), "libnvidia-egl-gbm.so.1");
    fake.link(&format!("{dir}/libnvidia-egl-gbm.so.1"), "libnvidia-egl-gbm.so.1.1.1");
    for (stem, soname) in [
        ("libcuda", "libcuda.so.1"),
        ("libnvidia-ml", "libnvidia-ml.so.1"),
        ("libGLX_nvidia", "libGLX_nvidia.so.0"),
    ] {
        fake.library_of_32_bits(&format!("{narrow}/{stem}.so.{VERSION}"), soname);
    }
    let (driver, glx) = (distribution.x_driver, distribution.x_glx);
    fake.library(&format!("{driver}/nvidia_drv.so"), "nvidia_drv.so");
    let module = format!("libglxserver_nvidia.so.{VERSION}");
    fake.library(&format!("{glx}/{module}"), "libglxserver_nvidia.so");
    for text in [distribution.vulkan, EGL, WAYLAND, OPTIX, OPENCL] {
        fake.write(text, format!("what {text} says"));
    }
    fake.write("/usr/share/glvnd/egl_vendor.d/50_mesa.json", "another's");
    fake
}

/// SONAMEs that only programs of this width get.
fn of_width(tree: &DriverTree, width: Width) -> Vec<&str> {
    let libraries = tree.libraries.iter().filter(|library| library.width == width);
    libraries.map(|library| library.soname.as_str()).collect()
}

#[test]
fn graphics_bring_libraries_and_what_tells_loaders_of_them() {
    for distribution in DISTRIBUTIONS {
        let fake = whole(&distribution);
        let tree = prepare(&fake, &only("graphics"));
        assert_eq!(
            libraries(&tree),
            [
                "libEGL_nvidia.so.0",
                "libGLX_indirect.so.0",
                "libGLX_nvidia.so.0",
                "libnvidia-allocator.so.1",
                "libnvidia-egl-gbm.so.1",
                "libnvidia-glcore.so.550.163.01",
                "libnvidia-gpucomp.so.550.163.01",
            ],
            "{}",
            distribution.libraries
        );
        let indirect = in_tree(&tree, &format!("{LIB_DIR}/libGLX_indirect.so.0"));
        assert!(indirect.ends_with(format!("libGLX_nvidia.so.{VERSION}")));
        for text in [distribution.vulkan, EGL, WAYLAND, OPTIX] {
            assert!(tree.data.iter().any(|place| place == text), "{text} of {:?}", tree.data);
            let found = fs::read_to_string(in_tree(&tree, text)).expect("a text");
            assert_eq!(found, format!("what {text} says"));
        }
        assert!(!tree.path.join("etc/OpenCL").exists(), "that is compute's");
        assert!(!tree.path.join("usr/share/glvnd/egl_vendor.d/50_mesa.json").exists());
        assert!(!tree.path.join("usr/lib/xorg").exists(), "that is display's");
    }
}

#[test]
fn the_backend_of_gbm_is_found_wherever_images_look_for_it() {
    let fake = whole(&DEBIAN_MULTIARCH);
    let tree = prepare(&fake, &only("graphics"));
    for folder in ["/usr/lib64", data::LOADER_DIRS[0], LIB_DIR] {
        let place = format!("{folder}/gbm/nvidia-drm_gbm.so");
        assert!(in_tree(&tree, &place).ends_with(format!("libnvidia-allocator.so.{VERSION}")));
        let outside = folder != LIB_DIR;
        assert_eq!(
            tree.data.contains(&place),
            outside,
            "{place} is bound where a tree is no layer"
        );
    }
}

#[test]
fn display_brings_what_graphics_do_and_the_x_server_s_modules() {
    for distribution in DISTRIBUTIONS {
        let fake = whole(&distribution);
        let (graphics, display) =
            (prepare(&fake, &only("graphics")), prepare(&fake, &only("display")));
        assert_eq!(libraries(&graphics), libraries(&display));
        assert!(graphics.data.iter().all(|place| display.data.contains(place)));
        for server in ["/usr/lib/xorg/modules", "/usr/lib64/xorg/modules"] {
            for (module, own) in [
                ("drivers/nvidia_drv.so", "nvidia_drv.so".to_owned()),
                ("extensions/libglxserver_nvidia.so", format!("libglxserver_nvidia.so.{VERSION}")),
            ] {
                let place = format!("{server}/{module}");
                assert!(in_tree(&display, &place).ends_with(own), "{place}");
                assert!(display.data.contains(&place), "{place}");
            }
        }
    }
}

#[test]
fn video_and_ngx_bring_their_own() {
    let fake = whole(&RED_HAT_MULTILIB);
    assert_eq!(
        libraries(&prepare(&fake, &only("video"))),
        [
            "libnvidia-encode.so",
            "libnvidia-encode.so.1",
            "libvdpau_nvidia.so",
            "libvdpau_nvidia.so.1"
        ]
    );
    assert_eq!(libraries(&prepare(&fake, &only("ngx"))), ["libnvidia-ngx.so.1"]);
}

#[test]
fn the_default_has_of_all_this_what_opencl_needs_alone() {
    let fake = whole(&DEBIAN_MULTIARCH);
    let tree = prepare(&fake, &all());
    assert_eq!(tree.data, [OPENCL]);
    assert_eq!(tree.lib_dirs, [LIB_DIR]);
    assert!(tree.libraries.iter().all(|library| !library.soname.contains("GL")), "{tree:?}");
    assert!(!prepare(&fake, &only("utility")).path.join("etc/OpenCL").exists());
}

#[test]
fn compat32_brings_the_32_bit_libraries_of_its_neighbours_apart_from_the_others() {
    for distribution in DISTRIBUTIONS {
        let fake = whole(&distribution);
        let tree = prepare(&fake, &only("compute,compat32"));
        assert_eq!(of_width(&tree, Width::Narrow), ["libcuda.so", "libcuda.so.1"]);
        assert_eq!(of_width(&tree, Width::Native), libraries(&prepare(&fake, &only("compute"))));
        assert_eq!(tree.lib_dirs, [LIB_DIR, "/usr/local/nvidia/lib"]);
        for library in &tree.libraries {
            let narrow = library.path.starts_with("/usr/local/nvidia/lib/");
            assert_eq!(narrow, library.width == Width::Narrow, "{library:?}");
            let bytes = fs::read(in_tree(&tree, &library.path)).expect("there");
            assert_eq!(bytes[4], if narrow { 1 } else { 2 }, "the ELF class of {library:?}");
        }
        let conf = fs::read_to_string(in_tree(&tree, DriverTree::LOADER_CONF)).expect("there");
        assert_eq!(conf, "/usr/local/nvidia/lib64\n/usr/local/nvidia/lib\n");
        let draws = prepare(&fake, &only("graphics,compat32"));
        assert_eq!(of_width(&draws, Width::Narrow), ["libGLX_indirect.so.0", "libGLX_nvidia.so.0"]);
    }
}

#[test]
fn a_capability_that_is_named_has_to_be_there_and_all_means_what_there_is() {
    let headless = installed(RED_HAT);
    for (names, words) in [
        ("graphics", "libGLX_nvidia of driver 550.163.01, for graphics, is not below"),
        ("compute,display", "libGLX_nvidia of driver 550.163.01, for display, is not below"),
        ("ngx", "libnvidia-ngx of driver 550.163.01, for ngx, is not below"),
        ("compute,compat32", "no 32-bit library of driver 550.163.01, for compat32, is below"),
    ] {
        let error = prepare_driver(&headless.host, &driver(), &only(names)).expect_err(names);
        let error = error.to_string();
        assert!(error.contains(words), "{names}: {error}");
    }
    let whatever = prepare(&headless, &only("all"));
    assert_eq!(
        whatever.libraries.iter().filter(|one| one.soname.starts_with("libcuda")).count(),
        2
    );
    let fake = Fake::new();
    fs::create_dir_all(&fake.host.root).expect("made");
    assert!(prepare_driver(&fake.host, &driver(), &only("all")).is_err(), "not even CUDA");
}

#[test]
fn every_directory_of_a_whole_tree_is_known_and_entered_by_users() {
    let fake = whole(&DEBIAN_MULTIARCH);
    let tree = prepare(&fake, &only("all"));
    let mut found = Vec::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(dir) = rest.pop() {
        for name in keep::names(&tree.path.join(&dir)).expect("listed") {
            let path = dir.join(name);
            let meta = fs::symlink_metadata(tree.path.join(&path)).expect("there");
            if meta.is_dir() {
                assert_eq!(meta.permissions().mode() & 0o777, 0o755, "{}", path.display());
                found.push(path.clone());
                rest.push(path);
            }
        }
    }
    found.sort();
    assert_eq!(tree.directories, found);
}
