# GNU make. CC, CPPFLAGS, CFLAGS and LDFLAGS are honoured; CONFIG_PLUGIN=n leaves plugins out.

CFLAGS        ?= -O2 -g
CONFIG_PLUGIN ?= y
BUILD         ?= build
OUT           ?= .

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
COMPDIR    ?= $(PREFIX)/share/bash-completion/completions
PLUGINDIR  ?= $(LIBDIR)/emu/plugins

# Guest programs are the tests' subject: what compiles them does not follow CC.
GUEST_CC ?= gcc
MUSL_CC  ?= musl-gcc

COMMON := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wmissing-prototypes -I. -MMD -MP
# Much of it can run with the guest's %fs: there is no canary, nor what lazy binding needs.
OWN    := $(COMMON) -fPIE -fno-stack-protector
ifneq ($(findstring musl-gcc,$(CC)),) # Debian's comes without the kernel's headers
OWN    += -idirafter /usr/include -idirafter /usr/include/$(shell gcc -print-multiarch)
endif

SRCS := $(filter-out plugin%.c,$(wildcard *.c))
ifeq ($(CONFIG_PLUGIN),y)
SRCS    += $(wildcard plugin*.c)
PLUGINS := $(patsubst plugins/%.c,$(OUT)/lib%.so,$(wildcard plugins/*.c))
OWN     += -DCONFIG_PLUGIN -DEMU_PLUGINDIR='"$(PLUGINDIR)"'
EXPORT  := -Wl,--dynamic-list=$(BUILD)/symbols.list
LISTS   := $(BUILD)/symbols.list $(BUILD)/symbols-ld64.list
endif
OBJS := $(SRCS:%.c=$(BUILD)/%.o) $(patsubst %.S,$(BUILD)/%.o,$(wildcard *.S))

all: $(OUT)/emu $(PLUGINS)

$(OUT)/emu: $(OBJS) $(LISTS)
	$(CC) $(CFLAGS) -pie -Wl,-z,relro,-z,now $(LDFLAGS) $(EXPORT) -o $@ $(OBJS) -ldl -lpthread

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(CC) $(OWN) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.S $(BUILD)/flags
	$(CC) -I. -MMD -MP $(CPPFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.S cpu_offsets.h $(BUILD)/flags
	$(CC) -c -o $@ $<


$(OUT)/lib%.so: plugins/%.c $(BUILD)/flags
	$(CC) $(COMMON) -fPIC -fvisibility=hidden -Iplugins -MF $(BUILD)/plugins/$*.d \
	    $(CPPFLAGS) $(CFLAGS) -shared $(LDFLAGS) -o $@ $<

# What plugins link against: GNU ld takes the list as it is, ld64 bare names with an underscore.
$(BUILD)/symbols.list: symbols.map $(BUILD)/flags
	cp $< $@
$(BUILD)/symbols-ld64.list: symbols.map $(BUILD)/flags
	sed -n '/qemu_/{s/;//;s/^[[:blank:]]*/_/;p;}' $< >$@

# Rewritten only when a choice changes, which rebuilds everything.
CHOICES := $(CC) $(OWN) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)/plugins $(BUILD)/tests $(BUILD)/guest
	@printf '%s\n' '$(subst ','\'',$(CHOICES))' >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# ---- tests ----------------------------------------------------------------------------------

TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
TEST_LIBS = -lcmocka
RUNS_EMU := guest count options plugin bad_elf access lockstep
UNIT  := $(filter-out $(RUNS_EMU:%=$(BUILD)/tests/test_%),$(TESTS))

# A test pulls from the archive only what it names: test_decode gets decode.o alone.
$(BUILD)/libemu.a: $(OBJS)
	rm -f $@
	ar rc $@ $^
$(BUILD)/tests/%: tests/%.c $(BUILD)/libemu.a
	$(CC) $(OWN) $(CPPFLAGS) $(CFLAGS) -pie $(LDFLAGS) -o $@ $< $(BUILD)/libemu.a \
	    $(TEST_LIBS) -ldl -lpthread

# Guest programs: .S stands alone, .c is dynamic, lib*.c a shared object for dlopen; hello and
# env are also built in every way a program can be linked.
GUEST_FLAGS := -D_GNU_SOURCE -O1 -g -Wall -pthread
GUEST_NAMES := $(filter-out lib%,$(basename $(notdir $(wildcard tests/guest/*.[cS]))))
GUEST_LIBS  := $(patsubst tests/guest/%.c,%.so,$(wildcard tests/guest/lib*.c))
VARIANTS    := static static-pie no-pie musl musl-static
GUESTS := $(addprefix $(BUILD)/guest/,$(GUEST_NAMES) $(GUEST_LIBS) \
            $(foreach v,$(VARIANTS),hello-$v environment-$v) accesses-no-pie)

$(BUILD)/guest/%: tests/guest/%.S tests/guest/guest.inc | $(BUILD)/flags
	$(GUEST_CC) -nostdlib -static -o $@ $<
$(BUILD)/guest/%: tests/guest/%.c | $(BUILD)/flags
	$(GUEST_CC) $(GUEST_FLAGS) -o $@ $< -lm -ldl
$(BUILD)/guest/%.so: tests/guest/%.c | $(BUILD)/flags
	$(GUEST_CC) $(GUEST_FLAGS) -fPIC -shared -o $@ $<
$(BUILD)/guest/%-static: tests/guest/%.c | $(BUILD)/flags
	$(GUEST_CC) $(GUEST_FLAGS) -static -o $@ $<
$(BUILD)/guest/%-static-pie: tests/guest/%.c | $(BUILD)/flags
	$(GUEST_CC) $(GUEST_FLAGS) -static-pie -o $@ $<
$(BUILD)/guest/%-no-pie: tests/guest/%.c | $(BUILD)/flags
	$(GUEST_CC) $(GUEST_FLAGS) -no-pie -o $@ $<
$(BUILD)/guest/%-musl: tests/guest/%.c | $(BUILD)/flags
	$(MUSL_CC) $(GUEST_FLAGS) -o $@ $<
$(BUILD)/guest/%-musl-static: tests/guest/%.c | $(BUILD)/flags
	$(MUSL_CC) $(GUEST_FLAGS) -static -o $@ $<

export EMU ?= $(OUT)/emu
export EMU_TEST_BUILD := $(BUILD)
# Every test program runs, also behind one that failed.
RUN_TESTS = status=0; for t in $(1); do echo "== $$t"; $$t || status=1; done; exit $$status

DISAS_FILES ?= $(wildcard $(addprefix /usr/lib/x86_64-linux-gnu/,libc.so.6 libm.so.6 \
    libcrypto.so.3 libstdc++.so.6) /usr/bin/perl /usr/bin/openssl /usr/bin/sqlite3)
check: all $(TESTS) $(GUESTS) lockstep $(BUILD)/tests/fuzz_decode $(BUILD)/tests/decode_objdump
	@$(call RUN_TESTS,$(TESTS) "$(BUILD)/tests/decode_objdump $(DISAS_FILES)" \
	    "$(BUILD)/tests/fuzz_decode -x -t 30")
# The guest suite in every forced mode, and again and again under load.
check-modes: all $(BUILD)/tests/test_guest $(GUESTS)
	$(BUILD)/tests/test_guest all
check-stress: all $(BUILD)/tests/test_guest $(BUILD)/tests/test_plugin $(GUESTS) check-endure
	$(BUILD)/tests/test_guest stress
	EMU_STRESS=100 $(BUILD)/tests/test_plugin stress
	tests/programs/run stress-ng
# Servers, language run-times and tools, those that are installed; PROGRAMS=NAMES chooses.
check-programs: all
	tests/programs/run $(PROGRAMS)
# Ten minutes of 10 kHz signals whose handlers know what is in every register; MODE: options of emu.
check-endure: SECONDS = 600
check-endure: all $(BUILD)/guest/endure
	$(EMU) $(MODE) $(BUILD)/guest/endure $(SECONDS) counts
check-unit: $(UNIT)
	@$(call RUN_TESTS,$(UNIT))

# The decoder against objdump over everything installed, with random bytes against itself and the
# processor, under libFuzzer, and against the clock beside the decoders that are installed.
TOOL_NAMES := decode_objdump fuzz_decode bench_decode
TOOLS      := $(TOOL_NAMES:%=$(BUILD)/tests/%)
$(TOOLS): TEST_LIBS =
has_header = $(shell $(CC) $(CPPFLAGS) -E -include $(1) - </dev/null >/dev/null 2>&1 && echo $(2))
$(BUILD)/tests/bench_decode: TEST_LIBS = \
    $(call has_header,Zydis/Zydis.h,-DHAVE_ZYDIS -lZydis) \
    $(call has_header,capstone/capstone.h,-DHAVE_CAPSTONE -lcapstone)
DISAS_DIRS ?= /usr/bin /usr/lib/x86_64-linux-gnu
COUNT      ?= 100000000
SECONDS    ?= 30
FUZZ_CC    ?= clang
check-disas-all: $(BUILD)/tests/decode_objdump
	find $(DISAS_DIRS) -type f -print0 | $< -0 -j $$(nproc)
fuzz: $(BUILD)/tests/fuzz_decode
	$< -x -n $(COUNT)
libfuzzer: $(BUILD)/tests/libfuzzer_decode
	$< -max_total_time=$(SECONDS) -max_len=24
$(BUILD)/tests/libfuzzer_decode: tests/fuzz_decode.c decode.c disas.c | $(BUILD)/flags
	$(FUZZ_CC) $(COMMON) -DLIBFUZZER -O1 -g -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover -o $@ $^
bench-decode: $(BUILD)/tests/bench_decode
	$<

# The processor beside emu, instruction by instruction (CONTRIBUTING.md).
lockstep: $(BUILD)/tests/liblockstep.so
$(BUILD)/tests/liblockstep.so: tests/plugins/lockstep.c $(BUILD)/flags
	$(CC) $(COMMON) -fPIC -fvisibility=hidden -Iplugins $(CPPFLAGS) $(CFLAGS) -shared -o $@ $<

# The parts that run no guest code, under both sanitizers; generated code and ASan's shadow do
# not live in one process, so the guest suite runs under UBSan only.
asan:
	$(MAKE) BUILD=build/asan OUT=build/asan LDFLAGS='$(LDFLAGS)' \
	    CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover' check-unit
ubsan:
	$(MAKE) BUILD=build/ubsan OUT=build/ubsan \
	    CFLAGS='-O1 -g -fsanitize=undefined -fno-sanitize-recover' check

# It does not follow pointers that the emitter moves on, nor kinds that imply an argument.
lint:
	cppcheck -q --std=c11 --language=c --enable=warning,portability --library=tests/cppcheck.cfg \
	    --suppress=unknownMacro --suppress='*:jit_x86_64.c' --error-exitcode=1 \
	    -DCONFIG_PLUGIN -D_GNU_SOURCE -I. $(SRCS)
	clang-format --dry-run -Werror $(wildcard *.[ch] plugins/*.[ch] tests/*.[ch] tests/*/*.[ch])

# Function lengths. A function opens with { and closes with } in column 0; tables do not.
budget:
	@awk 'FNR == 1 {start = 0} /^\{/ {start = FNR} \
	    /^\}/ && start {n = FNR - start + 1; sum += n; count++; start = 0; \
	        if (n > 60) printf "%4d lines: %s:%d\n", n, FILENAME, FNR - n + 1; \
	        if (n > 120) bad = 1} \
	    END {printf "%d functions, mean %.1f lines\n", count, sum / count; exit bad}' \
	    $(wildcard *.[ch] plugins/*.[ch] tests/*.[ch] tests/*/*.[ch])

# Everything against native, and what peers take; BENCH: arguments of tests/bench/run.
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
$(BUILD)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(GUEST_CC) -O2 -Wall -pthread -o $@ $<
bench: all $(BENCHES)
	tests/bench/run -json $(BUILD)/bench.json $(BENCH)
# README.md's figures and picture, from the last run of it.
bench-readme:
	tests/bench/plot $(BUILD)/bench.json

# ---- installation ---------------------------------------------------------------------------

DIRS := $(BINDIR) $(MANDIR)/man1 $(COMPDIR) $(PLUGINDIR) $(INCLUDEDIR)/emu
install: all
	install -d $(addprefix $(DESTDIR),$(DIRS))
	install -m 755 $(OUT)/emu $(DESTDIR)$(BINDIR)/emu
	install -m 644 docs/emu.1 $(DESTDIR)$(MANDIR)/man1/emu.1
	install -m 644 docs/emu.bash $(DESTDIR)$(COMPDIR)/emu
	install -m 644 plugin.h $(DESTDIR)$(INCLUDEDIR)/emu/qemu-plugin.h
	$(if $(PLUGINS),install -m 755 $(PLUGINS) $(DESTDIR)$(PLUGINDIR))
uninstall:
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/emu $(MANDIR)/man1/emu.1 $(COMPDIR)/emu)
	rm -rf $(addprefix $(DESTDIR),$(LIBDIR)/emu $(INCLUDEDIR)/emu)

clean:
	rm -rf $(BUILD) $(OUT)/emu $(PLUGINS)

FORCE:
.PHONY: all check check-modes check-stress check-endure check-programs check-unit check-disas-all \
        fuzz libfuzzer bench-decode lockstep asan ubsan lint budget bench bench-readme install \
        uninstall clean FORCE
.SECONDARY:

-include $(wildcard $(BUILD)/*.d $(BUILD)/plugins/*.d $(BUILD)/tests/*.d)
