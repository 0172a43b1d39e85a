# bash completion for emu

_emu()
{
    local options='-h -help -L -s -E -U -0 -d -D -one-insn-per-tb -tb-size -strace -follow-exec -plugin -disas
        -syntax -version -B -R -cpu'
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i=1

    # Behind the program everything is its own.
    while ((i < COMP_CWORD)); do
        case ${COMP_WORDS[i]} in
        -h | -help | -one-insn-per-tb | -strace | -follow-exec | -version) ((i++)) ;;
        -*) ((i += 2)) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")); return ;;
        esac
    done
    case $prev in
    -d) COMPREPLY=($(compgen -W 'in_asm nochain page plugin stats strace all help' -- "$cur")) ;;
    -syntax) COMPREPLY=($(compgen -W 'att intel' -- "$cur")) ;;
    *)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W "$options" -- "$cur"))
        else
            COMPREPLY=($(compgen -c -f -- "$cur"))
        fi
        ;;
    esac
}
complete -o filenames -F _emu emu
