/* cmd_version.c - `spinenode version`: what this program is and what was built into it */
#include <stdio.h>
#include <string.h>

#include <cyaml/cyaml.h>
#include <openssl/crypto.h>
#include <sqlite3.h>

#include "node/base/buf.h"

#include "model/engine.h"
#include "node/cmd.h"
#include "node/engines.h"

static const char help[] =
    "usage: spinenode version [--json]\n"
    "\n"
    "Prints the version of the program, the engines that were built into it, the instruction\n"
    "sets that this machine offers them, and the versions of the libraries in use.\n"
    "\n"
    "      --json  one JSON object\n"
    "  -h, --help  this text\n";

static const char *best_isa(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "avx2";
#endif
    return "base";
}

static void engines_into(struct buf *out, const char *before, const char *between,
                         const char *after)
{
    static const char *const names[] = {"ref", "cpu", "cuda"};
    bool first = true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (engine_find(names[i]) == NULL)
            continue;
        buf_printf(out, "%s%s%s%s", first ? "" : between, before, names[i], after);
        first = false;
    }
}

int cmd_version(int argc, char **argv)
{
    bool json = false;
    const struct cmd_option options[] = {{"json", 0, &json, NULL}, {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (operands != 0)
        return cmd_usage_error(argv[0], "unexpected argument '%s'", argv[1]);
    bool cuda = engine_find("cuda") != NULL;
    struct buf out;
    buf_init(&out, 4096);
    if (json) {
        buf_puts(&out, "{\"version\": \"" SPINENODE_VERSION "\", \"engines\": [");
        engines_into(&out, "\"", ", ", "\"");
        buf_printf(&out,
                   "], \"isa\": \"%s\", \"cuda\": %s, \"gpu\": %s, \"compiler\": \"%s\", "
                   "\"openssl\": \"%s\", "
                   "\"sqlite\": \"%s\", \"libcyaml\": \"%s\"}\n",
                   best_isa(), cuda ? "true" : "false", engines_have_gpu() ? "true" : "false",
                   __VERSION__, OpenSSL_version(OPENSSL_VERSION_STRING), sqlite3_libversion(),
                   cyaml_version_str);
    } else {
        buf_puts(&out, "spinenode " SPINENODE_VERSION "\nengines: ");
        engines_into(&out, "", ", ", "");
        buf_printf(&out,
                   "\ninstruction set: %s\nCUDA: %s\ncompiler: %s\n"
                   "libraries: OpenSSL %s, SQLite %s, libcyaml %s\n",
                   best_isa(),
                   !cuda                ? "not built in"
                   : engines_have_gpu() ? "built in"
                                        : "built in, but there is no GPU here",
                   __VERSION__, OpenSSL_version(OPENSSL_VERSION_STRING), sqlite3_libversion(),
                   cyaml_version_str);
    }
    fputs(buf_text(&out), stdout);
    buf_fini(&out);
    return cmd_finish_output(argv[0]);
}
