/* cmd_check_config.c - `spinenode check-config`: is the file right, and what does it come to? */
#include <stdio.h>

#include "node/base/buf.h"
#include "node/base/err.h"

#include "node/cmd.h"
#include "node/config.h"
#include "node/transport.h"

static const char help[] =
    "usage: spinenode check-config -c FILE\n"
    "\n"
    "Reads the configuration file and prints the effective configuration: every key with the\n"
    "value that it has, defaults included and paths made absolute. What is printed is a\n"
    "configuration file itself. A mistake is one line with file, line, key and what was\n"
    "expected there, and exit status 1.\n"
    "\n"
    "  -c, --config FILE  the configuration file\n"
    "  -q, --quiet        print nothing when the file is right\n"
    "  -h, --help         this text\n";

int cmd_check_config(int argc, char **argv)
{
    const char *path = NULL;
    bool quiet = false;
    const struct cmd_option options[] = {
        {"config", 'c', NULL, &path}, {"quiet", 'q', &quiet, NULL}, {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (path == NULL)
        return cmd_usage_error(argv[0], "-c FILE is missing");
    if (operands != 0)
        return cmd_usage_error(argv[0], "unexpected argument '%s'", argv[1]);

    struct err e;
    struct config *c = NULL;
    struct transport *transport = NULL;
    struct buf text;
    buf_init(&text, 16 * CONFIG_FILE_MAX);
    status = 0;
    if (config_load_to_run(path, &c, &transport, &e) != 0 || config_dump(c, &text, &e) != 0) {
        status = cmd_failed(argv[0], "%s", e.text);
    } else if (!quiet) {
        fputs(buf_text(&text), stdout);
        status = cmd_finish_output(argv[0]);
    }
    buf_fini(&text);
    transport_free(transport);
    config_free(c);
    return status;
}
