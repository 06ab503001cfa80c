# Phases of .ci/run that need another compiler, another target or another tool: the oldest
# supported compiler, aarch64, musl, cargo-deny, the listing of the public API, the packages.
#
# The phases keep downloads and builds below target/. Only `musl` changes the machine: the phase
# adds a target to the toolchain of rustup.

# Debian 12 has two versions of rustc-web; apt prefers the newer one.
OLDEST=1.85.0+dfsg3-1~deb12u3
DENY=0.20.2
# The release that reads the rustdoc JSON of API_COMPILER.
PUBLIC_API=0.52.0
API_COMPILER=1.95

DEBIAN=$TARGET/debian
TOOLS=$TARGET/tools

# debian ARCHITECTURE PACKAGE…: unpacks packages of the distribution into $DEBIAN/root. apt keeps
# lists and downloads in folders of their own, so that a second architecture does not touch the
# settings of the machine.
debian() {
    local architecture=$1 dir=$DEBIAN/$1 answers=true file
    shift
    [ "$(cat "$dir/unpacked" 2>/dev/null)" != "$*" ] || return 0
    if ! command -v apt-get >/dev/null; then
        unchecked 'there is no apt'
        return 1
    fi
    local apt=(-q -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
        -o APT::Sandbox::User=root -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir")
    rm -rf "$dir"
    mkdir -p "$dir/lists/partial" "$dir/archives/partial" "$DEBIAN/root"
    timeout 180 apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update >"$dir/log" 2>&1 ||
        answers=false
    if ! (cd "$dir/archives" && timeout 300 apt-get "${apt[@]}" download "$@") >>"$dir/log" 2>&1; then
        cat "$dir/log"
        # Where apt has the lists, a package that apt does not fetch is a failure of this script.
        if ! $answers; then
            unchecked 'the packages of the distribution do not answer'
        elif ! apt-cache "${apt[@]}" show "${1%%=*}" >/dev/null 2>&1; then
            unchecked "the distribution has no package ${1%%=*}"
        fi
        return 1
    fi
    for file in "$dir"/archives/*.deb; do
        dpkg-deb -x "$file" "$DEBIAN/root" || return
    done
    rm -rf "$dir/archives" "$dir/lists" "$dir"/*.bin
    echo "$*" >"$dir/unpacked"
}

# The compiler and cargo of that version, and the libraries that they load.
oldest_compiler() {
    debian "$(dpkg --print-architecture 2>/dev/null)" \
        rustc-web=$OLDEST cargo-web=$OLDEST libstd-rust-web-1.85=$OLDEST \
        libstd-rust-web-dev=$OLDEST libllvm19 libpcre3 libhttp-parser2.9
}

# oldest COMMAND ARGUMENT…: runs a program of the oldest compiler, in a target folder of its own.
oldest() {
    local root=$DEBIAN/root libraries program=$1
    shift
    libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
    LD_LIBRARY_PATH=${libraries%:} RUSTC=$root/usr/bin/rustc CARGO_TARGET_DIR=$TARGET/oldest \
        timeout 600 "$root/usr/bin/$program" "$@"
}

# The libraries with the oldest compiler that the manifest promises.
msrv() {
    oldest_compiler || return
    local promised found
    promised=$(awk -F'"' '/^rust-version = / { print $2 }' Cargo.toml)
    found=$(oldest rustc --version) || return
    echo "$found"
    case $found in
        "rustc $promised."*) ;;
        *) echo "the manifest promises Rust $promised"; return 1 ;;
    esac
    oldest cargo check -q --locked --workspace --all-features
}

aarch64() {
    oldest_compiler || return
    debian arm64 libstd-rust-web-dev=$OLDEST || return
    oldest cargo check -q --locked --workspace --all-features --target aarch64-unknown-linux-gnu
}

# The compiler of the machine: Debian has no standard library of Rust for musl.
musl() {
    local target=x86_64-unknown-linux-musl
    if [ ! -d "$(rustc --print target-libdir --target $target)" ]; then
        if ! command -v rustup >/dev/null; then
            unchecked "there is no rustup to fetch the target $target"
            return 1
        fi
        if ! timeout 300 rustup target add $target; then
            unchecked "rustup does not get the target $target"
            return 1
        fi
    fi
    timeout 600 cargo check -q --locked --workspace --all-features --target $target
}

# tool NAME VERSION: installs a program of cargo below target/. Speed of the program does not
# matter here, so that its build leaves out the optimizer.
tool() {
    local version
    version=$(timeout 60 "$TOOLS/bin/$1" "${1#cargo-}" --version 2>/dev/null) || true
    [ "$version" != "$1 $2" ] || return 0
    if CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_TARGET_DIR=$TOOLS/build \
        timeout 900 cargo install -q --locked --force --root "$TOOLS" "$1@$2"; then
        rm -rf "$TOOLS/build"
        return 0
    fi
    # Where the registry answers, a program that cargo does not install is a failure of this script.
    timeout 60 cargo info -q "$1" >/dev/null 2>&1 ||
        unchecked "the registry of crates does not answer, so that there is no $1"
    return 1
}

deny() {
    tool cargo-deny $DENY || return
    local deny=(timeout 300 "$TOOLS/bin/cargo-deny" --locked --all-features)
    "${deny[@]}" check licenses bans sources || return
    if "${deny[@]}" fetch db; then
        "${deny[@]}" check --disable-fetch advisories
    else
        unchecked 'advisories: their database does not answer'
    fi
}

# The public API of each package that has a listing in .ci/api. `API=write .ci/run api` writes the
# listings anew. The packages that are for the workspace alone have none.
api() {
    local manifest name listing code=0
    if [ "${API:-}" != write ] && ! compgen -G '.ci/api/*.txt' >/dev/null; then
        unchecked 'there is no listing in .ci/api'
        return 1
    fi
    # Each compiler writes its own format of JSON and its own paths.
    if [[ $(rustc --version) != "rustc $API_COMPILER."* ]]; then
        unchecked "the listings are for Rust $API_COMPILER"
        return 1
    fi
    tool cargo-public-api $PUBLIC_API || return
    mkdir -p "$TARGET/api" .ci/api
    for manifest in $(manifests); do
        name=$(package_name "$manifest")
        case $name in brood-sys | brood-reactor) continue ;; esac
        listing=.ci/api/$name.txt
        [ "${API:-}" = write ] || [ -f "$listing" ] || continue
        echo "$name"
        # Rustdoc of the stable compiler writes JSON only with RUSTC_BOOTSTRAP. The variable makes
        # build scripts run again, hence a target folder of its own.
        RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$TARGET/api/build timeout 300 \
            "$TOOLS/bin/cargo-public-api" public-api -p "$name" --all-features -ss \
            >"$TARGET/api/$name.txt" 2>"$TARGET/api/log" || { cat "$TARGET/api/log"; return 1; }
        if [ "${API:-}" = write ]; then
            cp "$TARGET/api/$name.txt" "$listing"
        else
            diff -u "$listing" "$TARGET/api/$name.txt" || code=1
        fi
    done
    [ $code -eq 0 ] || echo 'the public API has changed; API=write .ci/run api writes the listings'
    return $code
}

# The packages as a registry would get them; cargo builds each from the packed files alone.
packages() {
    timeout 900 cargo package -q --workspace --locked --allow-dirty
}
