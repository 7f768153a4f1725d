/* cmd_version.c - `spinenode version`: what this program is and what was built into it */
#include <stdio.h>
#include <string.h>

#include <cyaml/cyaml.h>
#include <openssl/crypto.h>
#include <sqlite3.h>

#include "node/base/buf.h"
#include "node/base/json.h"

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

static const char *const engines[] = {"ref", "cpu", "cuda"};

static void print_json(struct buf *out)
{
    json_open(out, NULL, '{');
    json_text(out, "version", SPINENODE_VERSION);
    json_open(out, "engines", '[');
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (engine_find(engines[i]) != NULL)
            json_text(out, NULL, engines[i]);
    json_close(out, ']');
    json_text(out, "isa", best_isa());
    json_bool(out, "cuda", engine_find("cuda") != NULL);
    json_bool(out, "gpu", engines_have_gpu());
    json_text(out, "compiler", __VERSION__);
    json_text(out, "openssl", OpenSSL_version(OPENSSL_VERSION_STRING));
    json_text(out, "sqlite", sqlite3_libversion());
    json_text(out, "libcyaml", cyaml_version_str);
    json_close(out, '}');
    buf_puts(out, "\n");
}

static void print_text(struct buf *out)
{
    const char *between = "";
    buf_puts(out, "spinenode " SPINENODE_VERSION "\nengines: ");
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        if (engine_find(engines[i]) == NULL)
            continue;
        buf_printf(out, "%s%s", between, engines[i]);
        between = ", ";
    }
    buf_printf(out,
               "\ninstruction set: %s\nCUDA: %s\ncompiler: %s\n"
               "libraries: OpenSSL %s, SQLite %s, libcyaml %s\n",
               best_isa(),
               engine_find("cuda") == NULL ? "not built in"
               : engines_have_gpu()        ? "built in"
                                           : "built in, but there is no GPU here",
               __VERSION__, OpenSSL_version(OPENSSL_VERSION_STRING), sqlite3_libversion(),
               cyaml_version_str);
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
    struct buf out;
    buf_init(&out, 4096);
    (json ? print_json : print_text)(&out);
    fputs(buf_text(&out), stdout);
    buf_fini(&out);
    return cmd_finish_output(argv[0]);
}
