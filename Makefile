# Spinenode. Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
#
# `make` builds what this machine can build and says what it found; it installs nothing.
# Variables: SANITIZE=address,undefined   build and test with sanitizers (own build folder)
#            DEBUG=1                      no optimisation
#            CUDA=no                      leave the CUDA engine out though nvcc is there
#            DICOM_DICTIONARY=FILE        build another data dictionary in than DCMTK's dicom.dic; after make clean

SHELL := /bin/bash
# V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2))
CC  ?= gcc
CXX ?= g++
B := build$(if $(SANITIZE),/sanitize)$(if $(DEBUG),/debug)

VERSION := 0.1.0
WARN     := -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Wcast-qual -Werror=return-type
OPT      := $(if $(DEBUG),-O0,-O2) -g
SAN      := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
HARDEN   := $(if $(SANITIZE)$(DEBUG),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fPIE
CPPFLAGS += -I. -D_GNU_SOURCE -DSPINENODE_VERSION='"$(VERSION)"' -MMD -MP
CFLAGS   += -std=gnu17 $(WARN) -Wstrict-prototypes -Wmissing-prototypes $(OPT) $(SAN) $(HARDEN)
CXXFLAGS += -std=gnu++17 -Wall -Wextra $(OPT) $(SAN) $(HARDEN)
LDFLAGS  += $(SAN) -pie -Wl,-z,relro,-z,now

# What the machine has.
# CUDNN_HOME: where cuDNN's include/ and lib/ are, if not with CUDA or the compiler.
FOUND_NVCC := $(if $(filter no,$(CUDA)),,$(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc)))
CUDA_HOME  := $(if $(FOUND_NVCC),$(abspath $(dir $(FOUND_NVCC))..))
CUDNN      := $(firstword $(wildcard $(addsuffix /cudnn.h,$(addsuffix /include,$(CUDNN_HOME) $(CUDA_HOME)) /usr/local/include /usr/include /usr/include/x86_64-linux-gnu)))
NVCC       := $(if $(CUDNN),$(FOUND_NVCC))

# The rooms. cpu_<isa>.c are built for their instruction set only, see below.
BASE_SRC  := $(wildcard node/base/*.c)
MODEL_SRC := $(wildcard model/*.c)
DICOM_SRC := $(wildcard dicom/*.c)
DICOM_CXX := $(wildcard dicom/*.cc)
NODE_SRC  := $(filter-out node/main.c,$(wildcard node/*.c))
# Of cuda/, all that needs no toolkit is built always: its index computations are tested everywhere.
CUDA_ONLY := cuda/convolution.c cuda/device_cuda.c cuda/engine_cuda.c
CUDA_SRC  := $(filter-out $(if $(NVCC),,$(CUDA_ONLY)),$(wildcard cuda/*.c))
CUDA_CU   := $(if $(NVCC),$(wildcard cuda/*.cu))
CUDA_LIBS := $(if $(NVCC),$(addprefix -L,$(wildcard $(addsuffix /lib,$(CUDNN_HOME) $(CUDA_HOME)) $(addsuffix /lib64,$(CUDA_HOME)))) -lcudnn -lcudart -lstdc++)
CPPFLAGS  += $(if $(NVCC),-DSPINENODE_CUDA)
FAKE_GPU := $(B)/tests/unit/fake_gpu.c.o
$(addprefix $(B)/,$(addsuffix .o,$(CUDA_ONLY))) $(FAKE_GPU) $(B)/tests/unit/test_cuda_tuning.c.o: CPPFLAGS += -I$(dir $(CUDNN)) -I$(CUDA_HOME)/include
# Hopper's own code; for every other GPU that cuDNN 9 knows the driver compiles the rest.
CUDA_ARCH ?= -gencode arch=compute_75,code=compute_75 -gencode arch=compute_90,code=sm_90
obj = $(patsubst %,$(B)/%.o,$(1))

LIBBASE  := $(B)/libbase.a
# What the engine stands on: base without OpenSSL.
LIBFLOOR := $(B)/libfloor.a
LIBMODEL := $(B)/libmodel.a
LIBDICOM := $(B)/libdicom.a
LIBNODE  := $(B)/libnode.a
LIBCUDA  := $(B)/libcuda.a

DCMTK_LIBS := -ldcmimgle -ldcmjpeg -ldcmjpls -ldcmtls -ldcmnet -ldcmdata -loflog -lofstd
NODE_LIBS  := $(DCMTK_LIBS) -lcyaml -lyaml -lsqlite3 -lssl -lcrypto -lz -lstdc++ -lpthread -ldl -lm
ENGINE_LIBS := -lpthread -lm -ldl

.PHONY: all evaluate gpu-check gpu-bench bench-engine engine engine-unit engine-test unit unit-programs test mutate lint format fuzz fuzz-build fuzz-model fuzz-dicom fuzz-dataset bench demo setup setup-train clean help
.DEFAULT_GOAL := all
all: $(if $(wildcard node/main.c),$(B)/spinenode) $(LIBBASE) $(LIBMODEL) $(LIBDICOM) $(LIBNODE)
	@echo "spinenode $(VERSION): compiler $$($(CC) -dumpfullversion), sanitizers $(or $(SANITIZE),none), CUDA $(if $(NVCC),$(NVCC) with $(CUDNN),not found)"

$(LIBBASE):  $(call obj,$(BASE_SRC))
$(LIBFLOOR): $(call obj,$(filter-out node/base/digest.c,$(BASE_SRC)))
$(LIBMODEL): $(call obj,$(MODEL_SRC))
$(LIBDICOM): $(call obj,$(DICOM_SRC) $(DICOM_CXX))
$(LIBNODE):  $(call obj,$(NODE_SRC))
$(LIBCUDA):  $(call obj,$(CUDA_SRC) $(CUDA_CU))
$(B)/%.a:
	@mkdir -p $(@D); rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

# The numeric kernels: one source, one object per instruction set, chosen at run time.
$(B)/model/%.c.o: OPT := $(if $(DEBUG),-O0,-O3) -g
# Loops over pixels, several at a time: nobody asks there for errno of a root or for a trap of a comparison.
$(B)/model/quality%.c.o $(B)/model/percentile.c.o $(B)/model/prepare.c.o: OPT := $(if $(DEBUG),-O0,-O3) -g -fno-math-errno -fno-trapping-math
# The host twin convolves in plain loops, and half of the engine tests wait for it.
$(B)/cuda/device_host.c.o $(B)/cuda/launch_host.c.o: OPT := $(if $(DEBUG),-O0,-O3) -g
# GCC 12's address sanitizer puts locals on a heap that is not aligned for vectors, when it looks for
# their use after return: it must leave those of the kernels where they are.
$(B)/model/cpu_avx2.c.o $(B)/model/cpu_avx512.c.o: SAN += $(if $(findstring address,$(SANITIZE)),--param asan-stack=0)
$(B)/model/cpu_avx2.c.o build/fuzz/model/cpu_avx2.c.o:     ISA := -mavx2 -mfma
$(B)/model/cpu_avx512.c.o build/fuzz/model/cpu_avx512.c.o: ISA := -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma -mprefer-vector-width=512

$(B)/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -c $< -o $@
$(B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) -I. -O3 $(CUDA_ARCH) -Xcompiler -fPIE -MMD -MF $(@:.o=.d) -c $< -o $@
$(B)/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@

# The data dictionary of the DCMTK that is installed, as a table: dicom/dictionary.cc. The same for every kind of build.
TABLE := build/dictionary.inc
$(addsuffix /dicom/dictionary.cc.o,$(B) build/fuzz build/clang): $(TABLE)
$(TABLE): scripts/dictionary_table
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)file="$(DICOM_DICTIONARY)"; \
	if [ -z "$$file" ]; then \
	    file=$$(printf '#include <dcmtk/config/osconfig.h>\nthe_default DCM_DICT_DEFAULT_PATH\n' \
	        | $(CXX) $(filter-out -M%,$(CPPFLAGS)) -E -P -x c++ - | sed -n 's/^the_default "\([^:"]*\).*/\1/p'); \
	    [ -n "$$file" ] || { echo "make: DCMTK is not found: install the package libdcmtk-dev" >&2; exit 1; }; \
	fi; \
	[ -r "$$file" ] || { echo "make: no data dictionary $$file: install the package libdcmtk17, or set DICOM_DICTIONARY=FILE" >&2; exit 1; }; \
	printf '%s: %s\n%s:\n' $@ "$$file" "$$file" >$(@:.inc=.d); \
	scripts/dictionary_table "$$file" >$@.new && mv $@.new $@

$(B)/spinenode: $(B)/node/main.c.o $(LIBNODE) $(LIBDICOM) $(LIBCUDA) $(LIBMODEL) $(LIBBASE)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) $^ $(NODE_LIBS) $(CUDA_LIBS) -o $@

# Unit tests: tests/unit/test_*.c, one program each. 
UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
UNIT_BIN := $(addprefix $(B)/tests/,$(UNIT))
# test_model_*.c need no DICOM, no SQL and no OpenSSL.
$(B)/tests/test_%: $(B)/tests/unit/test_%.c.o $(LIBNODE) $(LIBDICOM) $(LIBMODEL) $(LIBBASE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) $< $(LIBNODE) $(LIBDICOM) $(LIBMODEL) $(LIBBASE) -lcmocka $(NODE_LIBS) -o $@
$(B)/tests/test_model_%: $(B)/tests/unit/test_model_%.c.o $(LIBMODEL) $(LIBFLOOR)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $< $(LIBMODEL) $(LIBFLOOR) -lcmocka $(ENGINE_LIBS) -o $@
# test_cuda_*.c run on the host twin.
$(B)/tests/test_cuda_%: $(B)/tests/unit/test_cuda_%.c.o $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $(filter %.o,$^) $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR) -lcmocka $(CUDA_LIBS) $(ENGINE_LIBS) -o $@
# What the program itself defines comes before the libraries.
$(B)/tests/test_cuda_tuning: $(FAKE_GPU)

# What tests/net drives the network edge with.
$(B)/tests/net_probe: $(B)/tests/net/net_probe.c.o $(LIBDICOM) $(LIBBASE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) $^ $(DCMTK_LIBS) -lssl -lcrypto -lz -lstdc++ -lpthread -lm -o $@

# The node with GPUs that are files, and a management library that knows three: for tests/node/test_gpu.py. Its engine_cuda
# comes before the archive's.
STAND_IN := $(B)/tests/spinenode-stand-in $(B)/tests/fake-nvml/libnvidia-ml.so.1
$(B)/tests/stand_in_main.c.o: node/main.c
	@mkdir -p $(@D)
	$(call say,CC,$< for $@)
	$(Q)$(CC) $(CPPFLAGS) -DSPINENODE_CUDA $(CFLAGS) -c $< -o $@
$(B)/tests/spinenode-stand-in: $(B)/tests/stand_in_main.c.o $(B)/tests/node/stand_in.c.o $(LIBNODE) $(LIBDICOM) $(LIBCUDA) $(LIBMODEL) $(LIBBASE)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) $^ $(NODE_LIBS) -o $@
$(B)/tests/fake-nvml/libnvidia-ml.so.1: tests/node/fake_nvml.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -std=gnu17 $(WARN) -Wstrict-prototypes -Wmissing-prototypes -O1 -shared -fPIC $< -o $@

# What tests/dicom shows files and series to.
$(B)/tests/dicom_driver: $(B)/tests/dicom/driver.c.o $(LIBDICOM) $(LIBBASE)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) $^ $(DCMTK_LIBS) -lssl -lcrypto -lz -lstdc++ -lpthread -lm -o $@

.PRECIOUS: $(B)/%.c.o

# The engines alone, with the program that runs any of them on any ONNX file: no DICOM, SQL or OpenSSL.
OPCHECK := $(B)/opcheck
$(OPCHECK): $(B)/tests/engine/opcheck.c.o $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(CUDA_LIBS) $(ENGINE_LIBS) -o $@
# What cuDNN would plan for a network, asked without a GPU.
PLANCHECK := $(if $(NVCC),$(B)/plancheck)
$(B)/plancheck: $(B)/tests/engine/plancheck.c.o $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(CUDA_LIBS) $(ENGINE_LIBS) -o $@
# The same, but the host twin computes by the text of the kernels that nvcc compiles: that object comes before the archive's
# launch_host. Both compute the same bits; -ffp-contract=off holds them to it where a processor multiplies and adds at once.
DEVICE_TEXT := $(B)/tests/opcheck-device-text
$(B)/cuda/launch_host.c.o: CFLAGS += -ffp-contract=off
$(B)/tests/engine/device_text.cu.o: tests/engine/device_text.cu
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) -Itests/engine/device_text $(CPPFLAGS) $(CXXFLAGS) -Wno-unknown-pragmas -fno-strict-aliasing -ffp-contract=off \
	    -fsanitize=undefined -fno-sanitize-recover=all -x c++ -c $< -o $@
$(DEVICE_TEXT): $(B)/tests/engine/opcheck.c.o $(B)/tests/engine/device_text.cu.o $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(LDFLAGS) -fsanitize=undefined $^ $(CUDA_LIBS) $(ENGINE_LIBS) -o $@
engine: $(OPCHECK) $(PLANCHECK)
	@echo "engine: $(OPCHECK)"

# Fuzzing, by clang: FUZZ_S seconds of each tests/fuzz/fuzz_*.c. What is found stays in build/fuzz.
FUZZ_S ?= 600
build/fuzz/fuzz_onnx: $(patsubst %,build/fuzz/%.o,tests/fuzz/fuzz_onnx.c $(MODEL_SRC) $(filter-out node/base/digest.c,$(BASE_SRC)))
	clang -fsanitize=fuzzer,address,undefined $^ $(ENGINE_LIBS) -o $@
build/fuzz/model/cpu_avx2.c.o build/fuzz/model/cpu_avx512.c.o: FUZZ_OPT := -O0
# What the fuzzers are made of, compiled by clang as fast as that goes: gcc takes builtins that clang has not.
FUZZ_CXX := $(addprefix dicom/,dataset.cc dataset_write.cc dictionary.cc pixel.cc)
FUZZ_PARTS := $(sort $(wildcard tests/fuzz/*.c) $(MODEL_SRC) $(BASE_SRC) $(DICOM_SRC) $(FUZZ_CXX))
build/clang/model/cpu_avx2.c.o:   ISA := -mavx2 -mfma
build/clang/model/cpu_avx512.c.o: ISA := -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma
build/clang/%.c.o: %.c
	@mkdir -p $(@D)
	$(Q)clang -std=gnu17 -O0 $(CPPFLAGS) $(ISA) -c $< -o $@
build/clang/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(Q)clang++ -std=gnu++17 -O0 $(CPPFLAGS) -c $< -o $@
fuzz-build: $(patsubst %,build/clang/%.o,$(FUZZ_PARTS))
fuzz: fuzz-model fuzz-dicom fuzz-dataset
fuzz-model: build/fuzz/fuzz_onnx
	.venv/bin/python tests/fuzz/seeds_onnx.py build/fuzz/seeds-onnx
	@mkdir -p build/fuzz/corpus-onnx
	cd build/fuzz && ./fuzz_onnx corpus-onnx seeds-onnx -max_len=8192 -timeout=10 -rss_limit_mb=2048 -max_total_time=$(FUZZ_S)
FUZZ_DICOM := fuzz_dimse fuzz_peek
build/fuzz/%.c.o: %.c
	@mkdir -p $(@D)
	clang -std=gnu17 $(or $(FUZZ_OPT),-O1) -g $(CPPFLAGS) $(ISA) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -c $< -o $@
build/fuzz/libdicom.a: $(patsubst %,build/fuzz/%.o,$(BASE_SRC) $(DICOM_SRC))
	@rm -f $@; ar rcs $@ $^
$(addprefix build/fuzz/,$(FUZZ_DICOM)): build/fuzz/%: build/fuzz/tests/fuzz/%.c.o build/fuzz/libdicom.a
	clang -fsanitize=fuzzer,address,undefined $^ -lssl -lcrypto -lz -lpthread -lm -o $@
fuzz-dicom: $(addprefix build/fuzz/,$(FUZZ_DICOM))
	@for f in $(FUZZ_DICOM); do mkdir -p build/fuzz/corpus-$$f; \
	    build/fuzz/$$f build/fuzz/corpus-$$f -max_len=20000 -timeout=10 -max_total_time=$(FUZZ_S) -artifact_prefix=build/fuzz/ \
	    || exit 1; done
# The same with DCMTK; DCMTK itself is not instrumented. Seeds: the real files that come with pydicom.
build/fuzz/%.cc.o: %.cc
	@mkdir -p $(@D)
	clang++ -std=gnu++17 -O1 -g $(CPPFLAGS) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -c $< -o $@
build/fuzz/fuzz_dataset: $(patsubst %,build/fuzz/%.o,tests/fuzz/fuzz_dataset.c $(FUZZ_CXX)) build/fuzz/libdicom.a
	clang++ -fsanitize=fuzzer,address,undefined $^ $(DCMTK_LIBS) -lssl -lcrypto -lz -lpthread -lm -o $@
fuzz-dataset: build/fuzz/fuzz_dataset
	@mkdir -p build/fuzz/corpus-fuzz_dataset build/fuzz/seeds-dataset
	@.venv/bin/python -c "import pydicom,pathlib,shutil; [shutil.copy(p,'build/fuzz/seeds-dataset') for p in (pathlib.Path(pydicom.__file__).parent/'data/test_files').glob('*.dcm') if p.stat().st_size<20000]"
	build/fuzz/fuzz_dataset build/fuzz/corpus-fuzz_dataset build/fuzz/seeds-dataset -max_len=20000 -timeout=20 -rss_limit_mb=2048 -max_total_time=$(FUZZ_S) -artifact_prefix=build/fuzz/

# The CPU engine beside onnxruntime and OpenVINO; ARGS="--help" says what can be chosen.
$(B)/bench_engine_worker: $(B)/scripts/bench_engine_worker.c.o $(LIBMODEL) $(LIBFLOOR)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(ENGINE_LIBS) -o $@
bench-engine:
	@scripts/setup bench
	@$(MAKE) --no-print-directory $(PARALLEL) $(B)/bench_engine_worker
	@.venv-bench/bin/python scripts/bench_engine --build $(B) $(ARGS)

# On a machine with a GPU: both in one call take less than ten minutes. PYTHON needs numpy, onnx, onnxruntime and pytest, and what is
# left out without them is said; with PyTorch and CUDA there gpu-bench compares with it. In one call the bench comes after the check,
# whatever -j says, since both would measure each other; and it comes though the check failed, and then fails, too.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
BENCH_GPU := $(B)/bench_gpu_worker
$(BENCH_GPU): $(B)/scripts/bench_gpu_worker.c.o $(LIBCUDA) $(LIBMODEL) $(LIBFLOOR)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $^ $(CUDA_LIBS) $(ENGINE_LIBS) -o $@
GPU_BOTH := $(and $(filter gpu-check,$(MAKECMDGOALS)),$(filter gpu-bench,$(MAKECMDGOALS)))
CHECK_FAILED := $(B)/gpu_check.failed
gpu-check: engine $(BENCH_GPU)
	@rm -f $(CHECK_FAILED)
	$(PYTHON) scripts/gpu_check --build $(B) $(CHECK)$(if $(GPU_BOTH), || touch $(CHECK_FAILED))
gpu-bench: engine $(BENCH_GPU) $(if $(GPU_BOTH),gpu-check)
	@rc=0; $(PYTHON) scripts/bench_gpu --build $(B) $(BENCH) || rc=1; \
	$(if $(GPU_BOTH),[ ! -e $(CHECK_FAILED) ] || { echo "make: gpu-check failed: see above"; rc=1; };) exit $$rc

unit-programs: $(UNIT_BIN) $(B)/tests/net_probe $(B)/tests/dicom_driver $(OPCHECK) $(DEVICE_TEXT) $(PLANCHECK) $(BENCH_GPU) $(B)/bench_engine_worker $(STAND_IN)
unit: $(UNIT_BIN)
	@fail=0; for t in $^; do $$t || fail=1; done; exit $$fail

# The unit tests of the engines: they need cmocka, and none of the node's libraries.
ENGINE_UNIT := $(filter $(B)/tests/test_model_% $(B)/tests/test_cuda_%,$(UNIT_BIN))
engine-unit: $(ENGINE_UNIT)
	@fail=0; for t in $^; do $$t || { echo "engine-test: $$t failed"; fail=1; }; done; exit $$fail
engine-test: engine
	@if printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <cmocka.h>\n' | $(CC) -E -x c - >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory $(PARALLEL) engine-unit && echo "engine-test: $(words $(ENGINE_UNIT)) programs sound; \
	left out: the tests in Python (make test)"; \
	else echo "engine-test: nothing tested: the $(words $(ENGINE_UNIT)) unit programs need cmocka, the package libcmocka-dev" >&2; exit 1; fi

# What needs more than a compiler. setup installs what is missing, once; then each builds and hands over to a script.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 1))
setup:
	@scripts/setup
setup-train:
	@scripts/setup train
demo: setup
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@KEEP=$(KEEP) .venv/bin/python scripts/demo --spinenode $(B)/spinenode
# Tables, plots and sheets of the models: EVALUATION.md beside them, the rest in build/evaluate. EVALUATE="--help" lists what can be chosen.
evaluate: setup
	@.venv/bin/python scripts/evaluate $(EVALUATE)
# make test PYTEST="tests/system -k demo" runs only those, with pytest's own arguments.
test: setup
	@$(MAKE) --no-print-directory $(PARALLEL) all unit-programs
	@.venv/bin/python scripts/test --build $(B) $(PYTEST)
# Breaks the code on purpose: does a test notice? ARGS="--help" says what can be chosen.
mutate: setup
	@.venv/bin/python scripts/mutate $(ARGS)
bench: setup
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@.venv/bin/python scripts/bench --spinenode $(B)/spinenode $(BENCH)
lint:
	@python3 scripts/lint

format:
	@python3 scripts/lint --format

help:
	@echo "make            build what this machine can build (installs nothing)"
	@echo "make demo       set up, build, run the main job against Orthanc, show the result; KEEP=1 leaves both running"
	@echo "make test       set up, build, lint, every test; PYTEST='tests/system -k demo' for some of them"
	@echo "make unit       the C unit tests alone"
	@echo "make engine     the inference engines and build/opcheck alone: needs a compiler, nothing else"
	@echo "make engine-test  the engines' unit tests: needs cmocka, none of the node's libraries"
	@echo "make fuzz       FUZZ_S=600 seconds each of hostile model files, command sets and data sets (needs clang and .venv)"
	@echo "make fuzz-build  only compile, by clang, what the fuzzers are made of"
	@echo "make mutate     break the code on purpose, see that a test notices each break; ARGS=--coverage: which tests none made fail"
	@echo "make lint       the house rules; make format: clang-format"
	@echo "make bench-engine  set up, the CPU engine beside onnxruntime and OpenVINO"
	@echo "make gpu-check  the CUDA engine on a GPU against its oracles; make gpu-bench: against PyTorch"
	@echo "make bench      set up, build, measure"
	@echo "make evaluate   set up, measure the models beside their baselines, write model/zoo/EVALUATION.md"
	@echo "make setup      install what building and testing need; make setup-train: what training needs"
	@echo "make clean      remove build/"
	@echo "variables       SANITIZE=address,undefined (or thread)  DEBUG=1  CUDA=no  DICOM_DICTIONARY=FILE  V=1"

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
