# Causeway. A fresh machine with Swift 6.3 needs two commands: `make run` and `make test`.

SWIFT ?= swift
# A release leaves the dynamic checks of exclusive access to debug builds and their tests, in dependencies too: without the
# event loop's own, a cached read at depth 1 costs a tenth fewer instructions.
RELEASE = $(SWIFT) build -c release -Xswiftc -enforce-exclusivity=unchecked
# The simulator's own build for `make test`, in which bugs can be planted that it must find.
PLANTABLE = CAUSEWAY_PLANTED_BUGS=1 $(RELEASE)
SEEDS ?= 100000
FIRST_SEED ?= 1
KILLS ?= 200
CUTS ?= 50
ROUNDS ?= 20
INPUTS ?= 1000000
SEED ?= 1
PARSER ?= pdu
SECONDS ?= 600
LAB ?= .lab
# What the debug build of the tests is told besides. A change builds everything again.
TEST_FLAGS ?=
# Tests of modules that know no clock but a simulated one run side by side; others measure real time, and run alone.
PURE = '^(Blocks|CloudOnlyDisk|Disks|LinkProtocol|PacketWAN|ReadCache|SCSI|SecureCache|Simulation|Volumes|WriteLog)Tests[.]'
SOURCES = Package.swift Sources Tests

# What building, testing and the benchmarks need from Debian, and the command or file that shows it is there.
PACKAGES = pkg-config libssl-dev libipsec-mb-dev liblz4-dev libzstd-dev libiscsi-dev libsqlite3-dev \
           libiscsi-bin qemu-utils qemu-block-extra e2fsprogs tgt \
           libnbd-bin python3-libnbd nbdkit fio openssl valgrind binutils \
           qemu-system-x86 ipxe syslinux syslinux-common mtools dosfstools fdisk cpio xfsprogs \
           debootstrap zstd
# What the link is measured against, besides.
LINK_PACKAGES = iperf3 openssh-client openssh-server rsync

.PHONY: deps deps-link build run test bench bench-target bench-link bench-cache budget format format-check soak soak-kills soak-cuts soak-overwrites soak-guests replay fuzz fuzz-guided clean

# Installs the packages $(1) that are missing.
define install
@missing=""; for package in $(1); do \
  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q "ok installed" || missing="$$missing $$package"; done; \
if [ -n "$$missing" ]; then echo "installing:$$missing"; \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
endef

deps: ## Installs what is missing from Debian's packages.
	$(call install,$(PACKAGES))

deps-link: deps ## What bench-link needs besides. Debian starts a server for SSH that is installed: it is stopped, and stays off.
	@dpkg-query -W -f '$${Status}' openssh-server 2>/dev/null | grep -q "ok installed" || { mkdir -p .build; touch .build/ssh-server-is-new; }
	$(call install,$(LINK_PACKAGES))
	@if [ -e .build/ssh-server-is-new ]; then rm .build/ssh-server-is-new; \
	  if [ -d /run/systemd/system ]; then systemctl -q disable --now ssh.socket ssh.service; fi; fi

build: deps ## Builds causewayd, causeway and causeway-load into .build/release.
	$(RELEASE) --product causewayd
	$(RELEASE) --product causeway
	$(RELEASE) --product causeway-load

run: build ## Starts a lab on a sample disk, checks a read and a write through it, stays up until Ctrl-C.
	@deploy/run-lab $(LAB)

test: deps ## Simulation, hostile inputs, the data path's budget, then unit and end-to-end tests.
	$(PLANTABLE) --product causeway-simulator
	cp .build/release/causeway-simulator .build/simulator
	.build/simulator --hunt
	@# A release build of modules in a row leaves a core to the simulator.
	.build/simulator --seeds 7000 >.build/simulation.log 2>&1 & simulation=$$!; \
	$(RELEASE) --product causeway-fuzz; built=$$?; \
	wait $$simulation; simulated=$$?; cat .build/simulation.log; test $$built -eq 0 && test $$simulated -eq 0
	.build/release/causeway-fuzz --inputs 100000
	$(RELEASE) --product causeway-budget
	Benchmarks/budget/run
	$(SWIFT) build --build-tests $(TEST_FLAGS)
	$(SWIFT) test --skip-build --filter $(PURE)
	$(SWIFT) test --skip-build --no-parallel --skip $(PURE) --skip EndToEndTests
	$(SWIFT) test --skip-build --filter EndToEndTests

bench: bench-target ## The benchmarks against peers, as ratios.
	Benchmarks/wan/run

bench-target: build ## The target against tgtd, qemu-nbd and nbdkit, interleaved: the table of docs/benchmarks.md.
	Benchmarks/target/run --output .build/bench-target

bench-link: deps-link build ## The link over emulated lines of packets, against plain TCP, ssh -C and rsync -z; needs root.
	Benchmarks/link/run --output .build/bench-link

bench-cache: build ## The cache and policies of eviction on recorded block traces, against the clairvoyant optimum; its memory; a restart; flushed writes.
	$(RELEASE) --product causeway-cache-bench
	.build/release/causeway-cache-bench index --pattern sequential
	.build/release/causeway-cache-bench index --pattern random
	Benchmarks/cache/study
	Benchmarks/log/run

budget: deps ## What the data path may cost, in allocations and instructions.
	$(RELEASE) --product causeway-budget
	Benchmarks/budget/run

soak: deps ## The simulator over SEEDS seeds from FIRST_SEED on, on all cores, until one fails.
	$(RELEASE) --product causeway-simulator
	.build/release/causeway-simulator --seeds $(SEEDS) --first-seed $(FIRST_SEED)

soak-kills: deps ## KILLS kills of the daemons at random and two thirds as many power cuts, under verified writes.
	CAUSEWAY_KILLS=$(KILLS) $(SWIFT) test --filter 'kills|PowerCuts'

soak-cuts: deps ## CUTS cuts, silences and resets of the line under verified writes.
	CAUSEWAY_CUTS=$(CUTS) $(SWIFT) test --filter 'Crashes/cuts'

soak-overwrites: deps ## 100,000 flushed overwrites of 1,000 blocks within one point.
	CAUSEWAY_OVERWRITES=100000 $(SWIFT) test --filter PressureTests

soak-guests: deps ## Linux guests over ROUNDS kills, cuts and lost paths.
	CAUSEWAY_GUEST_ROUNDS=$(ROUNDS) $(SWIFT) test --filter EndToEndTests.EndToEnd/Guest

replay: deps ## One seed of the simulator: make replay SEED=17.
	$(RELEASE) --product causeway-simulator
	.build/release/causeway-simulator --seeds 1 --first-seed $(SEED) --workers 1

fuzz: deps ## INPUTS hostile inputs for every parser, decided by SEED.
	$(RELEASE) --product causeway-fuzz
	.build/release/causeway-fuzz --inputs $(INPUTS) --seed $(SEED)

fuzz-guided: deps ## Lets libFuzzer look for new coverage of PARSER for SECONDS.
	$(RELEASE) --scratch-path .build/guided --product causeway-fuzz -Xswiftc -sanitize=fuzzer -Xswiftc -DCOVERAGE_GUIDED
	mkdir -p .build/guided-corpus/$(PARSER)
	.build/guided/release/causeway-fuzz --guided --parser $(PARSER) -- \
	  -max_total_time=$(SECONDS) -timeout=20 -max_len=16384 .build/guided-corpus/$(PARSER) Tests/Fuzz/Corpus/$(PARSER)

format: ## Formats the sources in place.
	$(SWIFT) format -i -p -r $(SOURCES)

format-check: ## Fails when a file is not formatted.
	$(SWIFT) format lint -s -p -r $(SOURCES)

clean:
	rm -rf .build $(LAB)
